package sim_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// fault is something that goes wrong, and the tests that show what follows:
// the directory of a package, a dot, and the test. n is its number in
// docs/reliability-tables.md; 0: it has none.
type fault struct {
	n     int
	what  string
	tests []string
}

// allFaults are what GARO has to bear that can be shown without AWS and GitHub
// themselves.
var allFaults = []fault{
	// The API.
	{1, "the API dies before it recorded a request", []string{"internal/sim.TestDeadAPILeavesOneRecord", "internal/sim.TestStartSurvivesHarmAtEachStepOfTheAPI"}},
	{2, "the API dies between the record and the message", []string{"internal/sim.TestUnsentMessageIsMadeUpFor", "internal/sim.TestDeadAPILeavesOneRecord"}},
	{3, "the answer to a start is lost", []string{"internal/sim.TestDeadAPILeavesOneRecord"}},
	{4, "a client repeats its start five times", []string{"internal/sim.TestFiveStartsAtOnceAreOneRequest", "api.TestHundredReplaysMakeOneRecord"}},
	{5, "one run starts with another idempotency key", []string{"internal/sim.TestOtherKeyOfTheSameRunIsAnotherRequest"}},
	{6, "the table is down", []string{"api.TestStoreOutageLeavesNothingHalfDone"}},
	{7, "GitHub's key set cannot be fetched", []string{"internal/oidc.TestIssuerMayBeAwayForADay"}},
	{8, "the API's clock is off", []string{"internal/oidc.TestTokenIsTakenInItsTimeAlone"}},
	{9, "fifty starts race for a limit of ten", []string{"internal/sim.TestFiftyStartsAtALimitOfTen", "internal/sim.TestWaitForTheQuotaUntilGiveUpIsTheReapers", "worker.TestQuotaIsNeverPassed"}},

	// The queue.
	{10, "a message comes ten times at once", []string{"worker.TestTenMessagesAtOnceLaunchOnce"}},
	{11, "messages come in another order, or an hour late", []string{"internal/sim.TestMessageThatIsAnHourLateLaunchesNothing", "internal/sim.TestMessageOfAFinishedRequestLaunchesNothing"}},
	{12, "a message is lost", []string{"internal/sim.TestLostMessageIsSentAgain", "internal/sim.TestLostResumeIsMadeUpForByTheReaper"}},
	{13, "a message names what is not recorded", []string{"worker.TestUnknownRequestFailsItsMessageAlone", "internal/queue/queuetest.TestMemory"}},
	{14, "a message cannot be read", []string{"worker.TestUnreadableMessageLeavesTheOthersUnharmed", "internal/queue/queuetest.TestMemory"}},

	// The worker.
	{15, "a worker dies before or after any of its steps", []string{
		"internal/sim.TestEphemeralStartSurvivesHarmAtEachStepOfTheWorker", "internal/sim.TestSharedStartsSurviveHarmAtEachStepOfTheWorker",
		"internal/sim.TestLaunchWithoutCapacitySurvivesHarmAtEachStepOfTheWorker", "internal/sim.TestNextConfigSurvivesHarmAtEachStep",
		"internal/sim.TestTroubleSurvivesHarmAtEachStepOfTheWorker", "internal/sim.TestRetrySurvivesHarmAtEachStepOfTheWorker",
		"internal/sim.TestWaitForTheQuotaSurvivesHarmAtEachStepOfTheWorker", "internal/sim.TestRefusalSurvivesHarmAtEachStepOfTheWorker"}},
	{16, "a worker is killed during RunInstances", []string{"internal/sim.TestWorkerKilledInTheLaunchResumesTheSameInstance"}},
	{17, "a worker stands still, and continues after its successor took over", []string{"internal/sim.TestPausedWorkerDoesNoHarmWhenItContinues"}},
	{18, "a worker is killed late", []string{"internal/sim.TestClaimOfAWorkerThatIsKilledLateHolds"}},
	{19, "a goroutine outlives its handler", []string{"internal/sim.TestEverythingHealsAfterTenMinutesOfChaos"}},
	{20, "two workers resume one intent", []string{"internal/sim.TestTwoResumesOfOneIntentAreOneInstance"}},
	{21, "a deploy comes between a crash and its resume", []string{"worker.TestDeployBetweenCrashAndResumeKeepsTheBytes"}},

	// EC2 and STS.
	{22, "RunInstances has no answer, and launched", []string{"internal/sim.TestSweepRecordsTheInstanceThatNoWorkerDid", "worker.TestLostAnswerIsAdopted", "internal/sim.TestEphemeralStartSurvivesHarmAtEachStepOfTheWorker"}},
	{23, "RunInstances has no answer, and did not launch", []string{"internal/sim.TestTroubleSurvivesHarmAtEachStepOfTheWorker", "internal/sim.TestEphemeralStartSurvivesHarmAtEachStepOfTheWorker"}},
	{24, "RunInstances takes effect a minute late", []string{"internal/sim.TestLaunchThatTakesEffectAMinuteLate"}},
	{25, "placements have no capacity", []string{"worker.TestNoCapacityMovesToTheNextPlacement", "worker.TestNoCapacityAnywhereIsTriedAgainThenFailsWithTheList"}},
	{26, "no capacity, and then no answer", []string{"worker.TestNoCapacityThenTimeoutStaysOnThatIndex"}},
	{27, "the account's spot limit is reached", []string{"worker.TestSpotCountLimit"}},
	{28, "the account's vCPU limit is reached", []string{"worker.TestVCPULimitTriesAnotherFamilyThenWaitsUntilGiveUp"}},
	{29, "two hundred starts while EC2 throttles", []string{"internal/sim.TestTwoHundredStartsAreLaunchedAtEC2sPace", "worker.TestLaunchesKeepEC2sPace"}},
	{0, "hundreds of starts at once", []string{"internal/sim.TestNobodyIsBehindABurst", "internal/sim.TestAccountsOfOneAppAreNotBehindEachOther", "internal/sim.TestWhoComesTooLateInABurstLearnsWhen", "worker.TestNoWorkerWaitsForASlot", "store.TestLapsedTurnsDoNotClump"}},
	{30, "EC2 fails for half an hour", []string{"internal/sim.TestHalfAnHourOfEC2ErrorsLeavesNoDuplicate"}},
	{31, "EC2 refuses the launch", []string{"internal/sim.TestRefusalAfterAnUnclearLaunchCountsTheMachineUntilItIsOver", "worker.TestRefusedLaunchFailsAtOnce", "internal/sim.TestRefusalSurvivesHarmAtEachStepOfTheWorker"}},
	{32, "EC2 knows the client token with other bytes", []string{"worker.TestMismatchAdoptsOrAlarms"}},
	{33, "the launched instance is terminated already", []string{"internal/sim.TestInstanceThatEndedBeforeItsAnswerIsReplaced", "worker.TestTerminatedTokenDrainsTheRunnerAndAcceptsItsRequestAgain"}},
	{0, "EC2 ends a machine as soon as it is launched", []string{"internal/sim.TestMachineThatEC2EndsAtOnceFailsItsRequestWithEC2sReason", "internal/sim.TestSpotMachineThatDiesAtOnceIsReplacedOnDemand", "reaper.TestMachineThatEC2EndsAtOnceIsToldInTheNextRun"}},
	{0, "EC2 answers with a code that nobody knows", []string{"worker.TestCodeThatNobodyKnowsIsAskedFiveTimesAndTold", "internal/fleet/ec2fleet.TestWhatEC2AnswersToALaunch"}},
	{0, "the image is of another architecture than an instance type", []string{"internal/sim.TestImageOfAnotherArchitectureFindsItsType", "worker.TestNoTypeOfTheImagesArchitectureFailsWithEC2sWords"}},
	{0, "the image is gone, and its parameter names another", []string{"internal/sim.TestImageThatIsReplacedUnderItsParameterIsFound", "worker.TestImageThatIsGoneFailsWithEC2sWords"}},
	{0, "somebody edits the tags of a machine", []string{"internal/sim.TestBusyMachineWhoseTagsAreEditedKeepsItsJob", "reaper.TestBusyMachineWhoseTagsWereEditedLivesAndIsAlarmed"}},
	{0, "a connection was reset while its function was frozen", []string{"internal/aws/awshttp.TestCallOnAConnectionThatWasResetIsMadeOnAnother", "internal/fleet/ec2fleet.TestLaunchOnAConnectionThatWasCutIsOneMachine"}},
	{34, "EC2's view is five minutes old", []string{"reaper.TestStaleViewDeclaresNobodyDead"}},
	{35, "a page of the list fails", []string{"reaper.TestPageThatFailedConcludesNothing"}},
	{36, "a machine cannot be terminated", []string{"internal/sim.TestMachineThatCannotBeTerminatedEndsByItsTimer", "reaper.TestMachineThatCannotBeTerminatedStaysEndingAndAlarms"}},
	{37, "a machine never calls", []string{"internal/sim.TestMachineThatNeverBootsIsReplaced", "internal/sim.TestMachineWithoutANetworkIsReplaced"}},
	{38, "EC2 takes a spot machine back", []string{"internal/sim.TestSpotInterruptionWhileBooting", "internal/sim.TestSpotInterruptionOfAnIdleRunnerFreesItsKey", "internal/sim.TestSpotInterruptionOfABusyRunnerIsTold"}},
	{39, "EC2 takes a spot machine back without a word", []string{"internal/sim.TestMachineThatDiesWithoutAWordIsMissed"}},
	{40, "the account's role is gone", []string{"reaper.TestDeletedRoleIsNeverSilent"}},
	{41, "a session with the account is over in the middle of a run", []string{"internal/fleet/ec2fleet.TestSessionThatIsOverIsRenewedForALaunch", "internal/fleet/ec2fleet.TestOneSessionServesAllRegionsUntilItIsOver"}},

	// GitHub.
	{42, "the credential is refused, or was changed a moment ago", []string{"internal/github.TestChangedTokenIsReadAnewAndTheCallMadeOnceMore", "internal/aws/ssmparam.TestParameterServesForAnHourWhileSSMDoesNotAnswer", "worker.TestRefusedRegistrationDrainsAndFails", "internal/sim.TestRefusalSurvivesHarmAtEachStepOfTheWorker"}},
	{0, "one of several credentials is refused", []string{"internal/sim.TestOtherCredentialStandsInForOneThatIsRefused", "worker.TestRefusedCredentialIsPassedOver", "worker.TestMachineEndsWhenAllCredentialsAreRefused"}},
	{43, "the answer of a registration is lost", []string{"internal/sim.TestLostAnswerOfAMintLeavesOneRegistration"}},
	{44, "a name is taken", []string{"worker.TestNamesAreNeverUsedTwice", "internal/sim.TestTroubleSurvivesHarmAtEachStepOfTheWorker"}},
	{45, "GitHub asks to wait for twenty minutes", []string{"internal/sim.TestGitHubLimitOfTwentyMinutesLeaksNoMachine", "internal/sim.TestWaitForGitHubGoesOnByItself", "worker.TestGitHubLimitIsWaitedFor"}},
	{46, "GitHub is down for an hour", []string{"internal/sim.TestGitHubThatIsDownForAnHour", "internal/sim.TestGitHubThatIsDownIsTheReasonThatIsTold"}},
	{47, "GitHub's list leaves a busy runner out", []string{"internal/sim.TestBusyRunnerThatIsNotListedIsKept"}},
	{48, "GitHub refuses to delete a busy runner", []string{"internal/sim.TestBusyRunnerIsNotEndedBeforeItsJob", "reaper.TestBusyRunnerIsKeptUntilItsHardLimitAndNoLonger"}},
	{49, "a job is handed out just before the registration is deleted", []string{"internal/sim.TestBusyRunnerIsNotEndedBeforeItsJob", "reaper.TestJobThatWasHandedOutJustBeforeTheDeleteFinishes"}},
	{0, "a registration cannot be deleted", []string{"internal/sim.TestRunnerThatMayStillBeRegisteredIsNotReplaced"}},
	{50, "GitHub forgets a runner whose program does not notice", []string{"internal/sim.TestGhostOfADeletedRegistrationDrains", "internal/sim.TestForgottenRegistrationIsReplaced"}},
	{51, "another job takes the runner by its labels", []string{"api.TestStolenJobIsAlarmedAndTold"}},
	{52, "the runner program is too old", []string{"api.TestTooOldRunnerProgramFailsItsRequest"}},

	// Boot and agent.
	{53, "boot answers are lost", []string{"internal/sim.TestLostBootAnswersAreOneRegistration", "api.TestLostBootAnswersAreRepeated"}},
	{54, "the boot token is stolen, without AWS's word for the machine", []string{"internal/sim.TestStolenBootTokenOpensNothingWithoutAWSsWord", "api.TestThiefWithoutAWSsWordChangesNothing", "internal/test/machinetest.TestStolenTokenEndsTheMachine"}},
	{0, "the boot token is stolen, with a foreign word of AWS: for another machine, account or region, or not AWS's", []string{"internal/sim.TestStolenBootTokenOpensNothingWithoutAWSsWord", "api.TestThiefWithoutAWSsWordChangesNothing", "internal/aws/identity.TestMessageThatAWSDidNotSignIsRefused"}},
	{0, "the boot token is stolen, with a copy of AWS's word for the machine", []string{"internal/sim.TestStolenBootTokenWithACopiedWordEndsTheMachine", "api.TestSecondNonceWithACopiedWordEndsTheMachine", "api.TestCopiedWordOpensNothingWithoutTheToken", "api.TestSecondNonceEndsTheMachine", "internal/test/machinetest.TestStolenTokenEndsTheMachine"}},
	{0, "the metadata service of a machine does not answer", []string{"internal/sim.TestMachineThatIsBoundBootsThoughItsMetadataIsAway", "internal/sim.TestMachineWithoutMetadataIsRefusedAndTold", "internal/agent.TestMetadataServiceIsAskedAgainBeforeABootWithoutIt"}},
	{0, "machines, agents and APIs of the version before meet those of this one", []string{"api.TestLaunchOfTheVersionBeforeBootsWithoutAWSsWord", "internal/agent.TestAPIOfTheVersionBeforeIsCalledWithoutAWSsWord", "store.TestRunnerOfTheVersionBeforeIsNotVouched"}},
	{0, "a set-up script fails, hangs or cannot be fetched, or the agent of the version before knows nothing of it", []string{"internal/sim.TestMachineThatCannotBeSetUpFailsItsRequest", "internal/sim.TestMachineIsSetUpBeforeItsJob", "internal/sim.TestAgentOfAVersionBeforeIsReplaced"}},
	{55, "a second machine of one launch boots", []string{"internal/sim.TestSecondMachineOfALaunchIsRefusedAndEnds", "api.TestAnotherMachineWithTheTokenIsRefusedAndEndsNothing"}},
	{56, "a machine boots before its config is there", []string{"api.TestBootWaitsUntilAllIsRecorded"}},
	{57, "a machine boots after the boot limit", []string{"api.TestBootAfterTheLimitIsGone"}},
	{58, "events are forged, repeated or too many", []string{"api.TestForgedEventsNeverLengthenALife", "api.TestReplayedEventChangesNothing", "store.TestHeartbeat"}},
	{0, "a machine's calls fail at any step", []string{"internal/sim.TestMachineSurvivesHarmAtEachOfItsCalls"}},
	{59, "heartbeats are lost while the machine lives", []string{"internal/sim.TestSilentMachineIsNotSharedAndNotEndedInItsJob"}},

	// Workflow jobs.
	{0, "no webhook tells of a workflow job", []string{"internal/sim.TestJobsOfWhichNoWebhookComesAreFound", "internal/sim.TestJobsWithoutWebhooksAreServedByTheirRun", "internal/test/e2e.TestReaperHealsLostWebhooks"}},
	{0, "GitHub gives machines each other's jobs", []string{"internal/sim.TestMachinesThatTakeEachOthersJobsServeAll", "internal/sim.TestAPlainJobRuns"}},
	{0, "runners of others take a workflow job", []string{"internal/sim.TestAJobThatRunnersOfOthersTakeLeavesNothing"}},
	{0, "a workflow job is cancelled while its machine boots", []string{"internal/sim.TestAJobThatIsCancelledWhileItsMachineBootsLeavesNothing"}},
	{0, "a workflow job that took another's machine is stopped", []string{"internal/sim.TestStopOfAJobDrainsTheMachineThatTookIt"}},
	{0, "another workflow job takes a machine, and keeps it for long", []string{"internal/sim.TestAJobWhoseMachineIsTakenGetsAnotherAtOnce"}},
	{0, "the registration of an account moves while a workflow job waits", []string{"internal/sim.TestAJobIsServedWhereRunnersRegisterByThen"}},
	{0, "GitHub's log of deliveries shows that a webhook failed", []string{"internal/sim.TestAJobWhoseWebhookFailedIsFoundInTheLog"}},
	{0, "GitHub deletes a registration whose machine runs a workflow job", []string{"internal/sim.TestAJobWhoseRegistrationIsDeletedKeepsItsMachine"}},
	{0, "no machine of a workflow job can be set up", []string{"internal/sim.TestAJobWhoseMachinesCannotBeSetUpWaitsForPeople", "internal/sim.TestAJobWhoseMachineCannotBeSetUpCanBeCancelled"}},
	{0, "a worker dies while it checks the control plane, or the message of a check is lost", []string{"internal/sim.TestCheckOfADeadWorkerIsContinued", "internal/sim.TestCheckWhoseMessageIsLostIsSentAgain"}},
	{0, "an account refuses us while it is checked", []string{"internal/sim.TestCheckOfAnAccountThatRefusesUsSaysSo"}},
	{0, "a workflow job waits for an approval, or GitHub holds it back", []string{"internal/sim.TestAJobThatWaitsForApprovalIsServedThen", "internal/sim.TestALegThatIsHeldBackCostsFewMachines"}},
	{0, "a workflow job that is not allowed names the labels of one that is", []string{"internal/sim.TestAForbiddenJobHasNoMachineInTheWorld", "internal/sim.TestAForbiddenJobThatTakesAMachineIsRefusedThere", "internal/test/machinetest.TestMachineRefusesTheJobThatMayNotRunThere"}},
	{0, "nobody says in time whether a workflow job may run on its machine", []string{"internal/agent.TestAJobWaitsForTheAnswer", "internal/test/machinetest.TestMachineRefusesTheJobThatMayNotRunThere"}},
	{0, "GitHub's answer about a workflow job is older than its webhook", []string{"worker.TestAnAnswerThatIsOlderThanTheNewsIsNoAnswer"}},

	// Sharing.
	{60, "a share and a drain meet", []string{"internal/sim.TestShareAndDrainAtTheEndOfALife", "reaper.TestShareInTheLastMomentSavesTheRunner"}},
	{61, "a share comes from a worker that stood still", []string{"internal/sim.TestPausedWorkerDoesNoHarmWhenItContinues"}},
	{62, "a hundred starts of one key come at once", []string{"internal/sim.TestHundredStartsOfOneKeyAreOneLaunch", "worker.TestHundredSharersGetOneRunner"}},
	{63, "a launch fails that a hundred wait for", []string{"internal/sim.TestHundredThatWaitForALostLaunchGetTheNext"}},
	{64, "a runner is shared up to its hard limit", []string{"internal/sim.TestRunnerThatIsSharedAgainAndAgainEndsAtItsHardLimit", "store.TestShareOnALiveLock"}},

	// The store.
	{65, "a transaction meets another one, or is throttled", []string{"store/dynamostore.TestAnswersToACommit", "store/dynamostore.TestTriesOfOneTransactionCarryOneToken", "store/dynamostore.TestBackoffGrowsAndEndsWithTheContext"}},
	{66, "a write is applied, and its answer lost", []string{"store/storetest.TestMemory", "internal/sim.TestEphemeralStartSurvivesHarmAtEachStepOfTheWorker"}},
	{67, "the index lags by a minute", []string{"internal/sim.TestLaggingIndexOnlyDelays"}},
	{68, "records are deleted early or late", []string{"internal/sim.TestRecordsAreDeletedEarlyWithoutHarmToWhatLives"}},

	// The reaper.
	{69, "ten runs are missed", []string{"internal/sim.TestTenMissedRunsDelayAndDoNoHarm", "reaper.TestTenMissedRunsAreMadeUpFor"}},
	{69, "runs overlap", []string{"internal/sim.TestOverlappingRunsOfTheReaperDoNothingTwice", "reaper.TestOverlappingRunsHaveNoDoubleEffect"}},
	{70, "the table is empty by mistake", []string{"internal/sim.TestTableEmptyByMistakeEndsNothing", "reaper.TestEmptyTableWithAHundredMachinesEndsNone"}},
	{71, "the reaper dies before or after any of its steps", []string{"internal/sim.TestEndSurvivesHarmAtEachStepOfTheReaper", "reaper.TestRunThatDiesAtAnyCallIsContinuedByTheNext"}},
	{72, "everything goes wrong for ten minutes", []string{"internal/sim.TestEverythingHealsAfterTenMinutesOfChaos", "internal/sim.TestSeeds"}},
	{0, "all of it at once, in worlds that showed something before", []string{"internal/sim.TestKeptSeeds"}},
}

// root is where the repository begins, from here.
const root = "../.."

// tests returns the names of the test functions of a package.
func tests(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}

func TestEveryFaultHasATestThatExists(t *testing.T) {
	known := map[string]map[string]bool{}
	said := map[string]bool{}
	for _, f := range allFaults {
		if said[f.what] || len(f.tests) == 0 {
			t.Errorf("%q is there twice, or without a test", f.what)
		}
		said[f.what] = true
		exist(t, known, f.what, f.tests)
	}
}

// exist demands that there are the tests that what names. known has the tests of
// the packages that were looked at before.
func exist(t *testing.T, known map[string]map[string]bool, what string, names []string) {
	t.Helper()
	for _, name := range names {
		dot := strings.LastIndex(name, ".")
		dir, test := name[:dot], name[dot+1:]
		if known[dir] == nil {
			known[dir] = tests(t, dir)
		}
		if !known[dir][test] {
			t.Errorf("%q names %s, which there is not", what, name)
		}
	}
}

func TestEveryTestOfAFaultIsInTheTable(t *testing.T) {
	named := map[string]bool{}
	for _, f := range allFaults {
		for _, name := range f.tests {
			named[name] = true
		}
	}
	for _, f := range realFaults {
		for _, name := range f.tests {
			named[name] = true
		}
	}
	others := map[string]bool{ // what they show is no fault
		"TestEveryFaultHasATestThatExists": true, "TestEveryTestOfAFaultIsInTheTable": true, "TestOneSeedHasOneCourse": true,
		"TestSharersOfOneLock": true, "TestRequestsWithOtherNeedsShareNoMachine": true, "TestMetricsAreWhatTheRecordsSay": true, "TestNothingIsLaunchedOnceTheBudgetIsSpent": true, "TestCheckOfAWorldThatWorksIsOK": true, "TestConsoleOfAMachineIsReadByAWorker": true, "TestIdleRunnerDrainsAtTheIdleLimit": true, "TestMain": true,
		"TestShrinkLeavesWhatABreachNeeds": true, "TestGoldenFaultsAreInTheDocs": true,
		"TestEveryRealFaultIsThereOnceWithTestsThatExist": true, "TestGoldenRealFaultsAreInTheDocs": true,
	}
	for name := range tests(t, "internal/sim") {
		if !named["internal/sim."+name] && !others[name] && !strings.HasPrefix(name, "TestExhaustive") {
			t.Errorf("%s shows no fault of either table", name)
		}
	}
}

// faultTable is the table of docs/reliability-tables.md.
func faultTable() string {
	var b strings.Builder
	b.WriteString("| # | what goes wrong | shown by |\n|---|---|---|\n")
	for _, f := range allFaults {
		n := "-"
		if f.n > 0 {
			n = strconv.Itoa(f.n)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", n, f.what, "`"+strings.Join(f.tests, "`, `")+"`")
	}
	return b.String()
}

var update = flag.Bool("update", false, "write the tables of docs/reliability-tables.md")

func TestGoldenFaultsAreInTheDocs(t *testing.T) {
	for n, i := 1, 0; n <= 72; n++ {
		if i = slices.IndexFunc(allFaults, func(f fault) bool { return f.n == n }); i < 0 {
			t.Errorf("fault %d is not in the table", n)
		}
	}
	inTheDocs(t, "faults", faultTable())
}

// inTheDocs demands that docs/reliability-tables.md has the table between the comments
// <!-- name --> and <!-- end of name -->, or writes it there.
func inTheDocs(t *testing.T, name, table string) {
	t.Helper()
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->"
	path := filepath.Join(root, "docs", "reliability-tables.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	was, after, ended := strings.Cut(rest, end)
	switch {
	case !ok || !ended:
		t.Fatalf("%s has no table between %q and %q", path, begin, end)
	case *update:
		if err := os.WriteFile(path, []byte(before+begin+table+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	case was != table:
		t.Errorf("the table of %s is not that of the tests: make golden writes it", path)
	}
}
