package sim_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// fault is something that goes wrong, and the tests that show what comes of it:
// the directory of a package, a dot, and the test.
type fault struct {
	what  string
	tests []string
}

// allFaults are what GARO has to bear that can be shown without AWS and GitHub
// themselves.
var allFaults = []fault{
	// The API.
	{"the API dies before it recorded a request", []string{"internal/sim.TestDeadAPILeavesOneRecord", "internal/sim.TestStartSurvivesHarmAtEachStepOfTheAPI"}},
	{"the API dies between the record and the message", []string{"internal/sim.TestUnsentMessageIsMadeUpFor", "internal/sim.TestDeadAPILeavesOneRecord"}},
	{"the answer to a start is lost", []string{"internal/sim.TestDeadAPILeavesOneRecord"}},
	{"a client repeats its start five times", []string{"internal/sim.TestFiveStartsAtOnceAreOneRequest", "api.TestHundredReplaysMakeOneRecord"}},
	{"one run starts with another idempotency key", []string{"internal/sim.TestOtherKeyOfTheSameRunIsAnotherRequest"}},
	{"the table is down", []string{"api.TestStoreOutageLeavesNothingHalfDone"}},
	{"GitHub's key set cannot be fetched", []string{"internal/oidc.TestIssuerMayBeAwayForADay"}},
	{"the API's clock is off", []string{"internal/oidc.TestTokenIsTakenInItsTimeAlone"}},
	{"fifty starts race for a limit of ten", []string{"internal/sim.TestFiftyStartsAtALimitOfTen", "worker.TestQuotaIsNeverPassed"}},

	// The queue.
	{"a message comes ten times at once", []string{"worker.TestTenMessagesAtOnceLaunchOnce"}},
	{"messages come in another order, or an hour late", []string{"internal/sim.TestMessageThatIsAnHourLateLaunchesNothing", "internal/sim.TestMessageOfAFinishedRequestLaunchesNothing"}},
	{"a message is lost", []string{"internal/sim.TestLostMessageIsSentAgain", "internal/sim.TestLostResumeIsMadeUpForByTheReaper"}},
	{"a message names what is not recorded", []string{"worker.TestUnknownRequestFailsItsMessageAlone", "internal/queue/queuetest.TestMemory"}},
	{"a message cannot be read", []string{"worker.TestUnreadableMessageLeavesTheOthersUnharmed", "internal/queue/queuetest.TestMemory"}},

	// The worker.
	{"a worker dies before or after any of its steps", []string{
		"internal/sim.TestEphemeralStartSurvivesHarmAtEachStepOfTheWorker", "internal/sim.TestSharedStartsSurviveHarmAtEachStepOfTheWorker",
		"internal/sim.TestLaunchWithoutCapacitySurvivesHarmAtEachStepOfTheWorker", "internal/sim.TestNextConfigSurvivesHarmAtEachStep",
		"internal/sim.TestTroubleSurvivesHarmAtEachStepOfTheWorker", "internal/sim.TestRetrySurvivesHarmAtEachStepOfTheWorker",
		"internal/sim.TestWaitForTheQuotaSurvivesHarmAtEachStepOfTheWorker", "internal/sim.TestRefusalSurvivesHarmAtEachStepOfTheWorker"}},
	{"a worker is killed during RunInstances", []string{"internal/sim.TestWorkerKilledInTheLaunchResumesTheSameInstance"}},
	{"a worker stands still, and goes on after its successor took over", []string{"internal/sim.TestPausedWorkerDoesNoHarmWhenItGoesOn"}},
	{"a worker is killed late", []string{"internal/sim.TestClaimOfAWorkerThatIsKilledLateHolds"}},
	{"a goroutine outlives its handler", []string{"internal/sim.TestEverythingHealsAfterTenMinutesOfChaos"}},
	{"two workers resume one intent", []string{"internal/sim.TestTwoResumesOfOneIntentAreOneInstance"}},
	{"a deploy comes between a crash and its resume", []string{"worker.TestDeployBetweenCrashAndResumeKeepsTheBytes"}},

	// EC2 and STS.
	{"RunInstances has no answer, and launched", []string{"internal/sim.TestSweepRecordsTheInstanceThatNoWorkerDid", "worker.TestLostAnswerIsAdopted", "internal/sim.TestEphemeralStartSurvivesHarmAtEachStepOfTheWorker"}},
	{"RunInstances has no answer, and did not launch", []string{"internal/sim.TestTroubleSurvivesHarmAtEachStepOfTheWorker", "internal/sim.TestEphemeralStartSurvivesHarmAtEachStepOfTheWorker"}},
	{"RunInstances takes effect a minute late", []string{"internal/sim.TestLaunchThatTakesEffectAMinuteLate"}},
	{"placements have no capacity", []string{"worker.TestNoCapacityMovesToTheNextPlacement", "worker.TestNoCapacityAnywhereIsTriedAgainThenFailsWithTheList"}},
	{"no capacity, and then no answer", []string{"worker.TestNoCapacityThenTimeoutStaysOnThatIndex"}},
	{"the account's spot limit is reached", []string{"worker.TestSpotCountLimit"}},
	{"the account's vCPU limit is reached", []string{"worker.TestVCPULimitTriesAnotherFamilyThenWaitsUntilGiveUp"}},
	{"two hundred starts while EC2 throttles", []string{"internal/sim.TestTwoHundredStartsAreLaunchedAtEC2sPace", "worker.TestLaunchesKeepEC2sPace"}},
	{"EC2 fails for half an hour", []string{"internal/sim.TestHalfAnHourOfEC2ErrorsLeavesNoDuplicate"}},
	{"EC2 refuses the launch", []string{"internal/sim.TestRefusalAfterAnUnclearLaunchCountsTheMachineUntilItIsOver", "worker.TestRefusedLaunchFailsAtOnce", "internal/sim.TestRefusalSurvivesHarmAtEachStepOfTheWorker"}},
	{"EC2 knows the client token with other bytes", []string{"worker.TestMismatchAdoptsOrAlarms"}},
	{"the launched instance is terminated already", []string{"internal/sim.TestInstanceThatEndedBeforeItsAnswerIsReplaced", "worker.TestTerminatedTokenDrainsTheRunnerAndAcceptsItsRequestAgain"}},
	{"EC2's view is five minutes old", []string{"reaper.TestStaleViewDeclaresNobodyDead"}},
	{"a page of the list fails", []string{"reaper.TestPageThatFailedConcludesNothing"}},
	{"a machine cannot be terminated", []string{"internal/sim.TestMachineThatCannotBeTerminatedEndsByItsTimer", "reaper.TestMachineThatCannotBeTerminatedStaysEndingAndAlarms"}},
	{"a machine never calls", []string{"internal/sim.TestMachineThatNeverBootsIsReplaced", "internal/sim.TestMachineWithoutANetworkIsReplaced"}},
	{"EC2 takes a spot machine back", []string{"internal/sim.TestSpotInterruptionWhileBooting", "internal/sim.TestSpotInterruptionOfAnIdleRunnerFreesItsKey", "internal/sim.TestSpotInterruptionOfABusyRunnerIsTold"}},
	{"EC2 takes a spot machine back without a word", []string{"internal/sim.TestMachineThatDiesWithoutAWordIsMissed"}},
	{"the account's role is gone", []string{"reaper.TestDeletedRoleIsNeverSilent"}},

	// GitHub.
	{"the credential is refused", []string{"worker.TestRefusedRegistrationDrainsAndFails", "internal/sim.TestRefusalSurvivesHarmAtEachStepOfTheWorker"}},
	{"the answer of a registration is lost", []string{"internal/sim.TestLostAnswerOfAMintLeavesOneRegistration"}},
	{"a name is taken", []string{"worker.TestNamesAreNeverUsedTwice", "internal/sim.TestTroubleSurvivesHarmAtEachStepOfTheWorker"}},
	{"GitHub asks to wait for twenty minutes", []string{"internal/sim.TestGitHubLimitOfTwentyMinutesLeaksNoMachine", "internal/sim.TestWaitForGitHubGoesOnByItself", "worker.TestGitHubLimitIsWaitedFor"}},
	{"GitHub is down for an hour", []string{"internal/sim.TestGitHubThatIsDownForAnHour"}},
	{"GitHub's list leaves a busy runner out", []string{"internal/sim.TestBusyRunnerThatIsNotListedIsKept"}},
	{"GitHub refuses to delete a busy runner", []string{"internal/sim.TestBusyRunnerIsNotEndedBeforeItsJob", "reaper.TestBusyRunnerIsKeptUntilItsHardLimitAndNoLonger"}},
	{"a job is handed out just before the registration is deleted", []string{"internal/sim.TestBusyRunnerIsNotEndedBeforeItsJob", "reaper.TestJobThatWasHandedOutJustBeforeTheDeleteFinishes"}},
	{"a registration cannot be deleted", []string{"internal/sim.TestRunnerThatMayStillBeRegisteredIsNotReplaced"}},
	{"GitHub forgets a runner whose program does not notice", []string{"internal/sim.TestGhostOfADeletedRegistrationIsEndedByTheIdleLimit", "internal/sim.TestForgottenRegistrationIsMadeAnew"}},
	{"another job takes the runner by its labels", []string{"api.TestStolenJobIsAlarmedAndTold"}},
	{"the runner program is too old", []string{"api.TestTooOldRunnerProgramFailsItsRequest"}},

	// Boot and agent.
	{"boot answers are lost", []string{"internal/sim.TestLostBootAnswersAreOneRegistration", "api.TestLostBootAnswersAreRepeated"}},
	{"the boot token is stolen", []string{"internal/sim.TestStolenBootTokenEndsTheMachine", "api.TestSecondNonceEndsTheMachine"}},
	{"a second machine of one launch boots", []string{"internal/sim.TestSecondMachineOfALaunchIsRefusedAndEnds"}},
	{"a machine boots before its config is there", []string{"api.TestBootWaitsUntilAllIsRecorded"}},
	{"a machine boots after the boot limit", []string{"api.TestBootAfterTheLimitIsGone"}},
	{"events are forged, repeated or too many", []string{"api.TestForgedEventsNeverLengthenALife", "api.TestReplayedEventChangesNothing", "store.TestHeartbeat"}},
	{"a machine's calls fail at any step", []string{"internal/sim.TestMachineSurvivesHarmAtEachOfItsCalls"}},
	{"heartbeats are lost while the machine lives", []string{"internal/sim.TestSilentMachineIsNotSharedAndNotEndedInItsJob"}},

	// Sharing.
	{"a share and a drain meet", []string{"internal/sim.TestShareAndDrainAtTheEndOfALife", "reaper.TestShareInTheLastMomentSavesTheRunner"}},
	{"a share comes from a worker that stood still", []string{"internal/sim.TestPausedWorkerDoesNoHarmWhenItGoesOn"}},
	{"a hundred starts of one key come at once", []string{"internal/sim.TestHundredStartsOfOneKeyAreOneLaunch", "worker.TestHundredSharersGetOneRunner"}},
	{"a launch fails that a hundred wait for", []string{"internal/sim.TestHundredThatWaitForALostLaunchGetTheNext"}},
	{"a runner is shared up to its hard limit", []string{"internal/sim.TestRunnerThatIsSharedAgainAndAgainEndsAtItsHardLimit", "store.TestShareOnALiveLock"}},

	// The store.
	{"a write is applied, and its answer lost", []string{"store/storetest.TestMemory", "internal/sim.TestEphemeralStartSurvivesHarmAtEachStepOfTheWorker"}},
	{"the index lags by a minute", []string{"internal/sim.TestLaggingIndexOnlyDelays"}},
	{"records are deleted early or late", []string{"internal/sim.TestRecordsAreDeletedEarlyWithoutHarmToWhatLives"}},

	// The reaper.
	{"ten runs are missed", []string{"internal/sim.TestTenMissedRunsDelayAndDoNoHarm", "reaper.TestTenMissedRunsAreMadeUpFor"}},
	{"runs overlap", []string{"internal/sim.TestOverlappingRunsOfTheReaperDoNothingTwice", "reaper.TestOverlappingRunsHaveNoDoubleEffect"}},
	{"the table is empty by mistake", []string{"internal/sim.TestTableEmptyByMistakeEndsNothing", "reaper.TestEmptyTableWithAHundredMachinesEndsNone"}},
	{"the reaper dies before or after any of its steps", []string{"internal/sim.TestEndSurvivesHarmAtEachStepOfTheReaper", "reaper.TestRunThatDiesAtAnyCallIsContinuedByTheNext"}},
	{"everything goes wrong for ten minutes", []string{"internal/sim.TestEverythingHealsAfterTenMinutesOfChaos"}},
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
		for _, name := range f.tests {
			dot := strings.LastIndex(name, ".")
			dir, test := name[:dot], name[dot+1:]
			if known[dir] == nil {
				known[dir] = tests(t, dir)
			}
			if !known[dir][test] {
				t.Errorf("%q names %s, which there is not", f.what, name)
			}
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
	others := map[string]bool{ // what they show is no fault
		"TestEveryFaultHasATestThatExists": true, "TestEveryTestOfAFaultIsInTheTable": true, "TestOneSeedHasOneCourse": true,
		"TestSharersOfOneLock": true, "TestIdleRunnerDrainsAtTheIdleLimit": true,
	}
	for name := range tests(t, "internal/sim") {
		if !named["internal/sim."+name] && !others[name] {
			t.Errorf("%s shows no fault of the table", name)
		}
	}
}
