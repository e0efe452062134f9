package sim_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// realFault is something that the real parts around GARO do, or that people do with
// it, which its picture of them once lacked, and the tests that show what becomes of
// it now: as in fault. id is its row in docs/reliability-tables.md.
type realFault struct {
	id    string
	what  string
	tests []string
}

// realIDs are the rows that there have to be: R is for the runner program and
// GitHub, E for EC2, L for Lambda and what is around it, S for what may starve or
// strand others, U for its users. Some numbers are not in use.
var realIDs = strings.Fields(`R1 R2 R3 R4 R5 R6 R7 R8 R9 R10 R11 R12 R13 R14 R15
	E1 E2 E4 E5 E6 E8 E9 L1 L2 L3 L4 L5 L6 L7 L8 S1 S2 S3 S4 S5 S6 S7 U1 U3 U4 U5 U6 U7 U8`)

// realFaults were found by reading the source of the real parts, and by use.
var realFaults = []realFault{
	// The runner program and GitHub.
	{"R1", "the runner program says that it listens, and GitHub refuses its version a moment or minutes later", []string{
		"internal/sim.TestVersionThatIsRefusedAtOnceFailsItsRequestAndEachNextOne",
		"internal/sim.TestVersionThatIsRefusedLaterLeavesTheRequestReadyAndItsImageRefused",
		"internal/agent.TestProgramThatGitHubRefusesAtOnceIsNeverSaidToListen", "internal/agent.TestProgramThatGitHubRefusesLaterWasSaidToListen",
		"api.TestOnlineIsTheMachinesWordAloneAndAsksGitHubOnce", "worker.TestConfirmedRunnerAndItsRequestAreReadyInOneCommit",
		"worker.TestRunnerThatGitHubShowsLateIsAskedAboutLessAndLess", "api.TestTooOldProgramMarksItsImageInTheSameCommitBeforeAnyJobAlone",
		"worker.TestStartOfARefusedImageFailsUntilImageOrProgramsChange", "reaper.TestListeningRunnerWhoseMessageWasLostIsConfirmed"}},
	{"R2", "GitHub forgets the registration of a shared runner, or its job goes to another one, and the program listens on", []string{
		"internal/sim.TestGhostIsSharedForTwoMinutesAtMost", "internal/sim.TestJobThatGoesToAnotherRunnerLeavesNoGhost",
		"reaper.TestRegistrationThatGitHubForgotDrainsWithoutAnyStart", "worker.TestRegistrationThatGitHubForgotIsSharedByNobodyAndReplaced",
		"worker.TestShareWithinTwoMinutesAsksNobody", "worker.TestStaleShareAsksOnceAndIsReadyInThatCommit",
		"worker.TestTwoHundredHeldRequestsCostAQuestionInFiveSeconds", "store.TestLiveLockIsConfirmedForTwoMinutes"}},
	{"R3", "GitHub refuses the runner program in a job or after it, or `run.sh` hides why the program ended", []string{
		"internal/sim.TestVersionThatIsRefusedInAJobEndsTheMachineAndBlamesNoImage", "internal/agent.TestTooOldDecidesWheneverItComes",
		"internal/agent.TestTooOldOfALaterConfigEndsASharedMachine", "internal/agent.TestAnyOtherExitEndsItsConfigAlone",
		"internal/agent.TestEachConfigIsSaidToListenAfterASecond", "worker.TestEachConfigOfASharedRunnerIsConfirmed",
		"internal/agent/host.TestRunnerProgramIsUnderstood", "internal/agent/host.TestRefusedRunnerProgramThatRestartsForEverIsTooOld",
		"internal/agent/host.TestRunnerProgramThatRestartsForEverNeverExits", "internal/agent/host.TestSignalEndsRunShAndNotTheListener"}},
	{"R4", "a shared runner has no config at GitHub between two jobs, while GitHub registers nothing", []string{
		"internal/sim.TestRunnerThatUsedItsConfigUpIsNotSharedUntilItHasAnother", "worker.TestRunnerBetweenTwoConfigsIsSharedByNobody",
		"worker.TestNobodySharesWhileGitHubIsAway", "store.TestANewConfigIsNotConfirmedByTheOldOnesWord",
		"worker.TestGitHubDownIsToldAsSuchAndSpendsFewNames", "store.TestCrowdedRunnerGetsNoFurtherName"}},
	{"R5", "the jobs that are queued for a shared runner take longer than anybody asked for", []string{
		"internal/sim.TestJobsThatAreQueuedForASharedRunnerAreServedUpToItsHardLimit", "reaper.TestQueuedJobsOfASharedRunnerAreServedPastItsExp",
		"api.TestNextIsAnsweredPastExpUpToTheHardLimit", "store.TestDrainReason", "store.TestNext"}},
	{"R6", "an image has job hooks of its own, in `.env`, which the runner program loads over its environment", []string{
		"internal/agent/host.TestHooksOfTheImageRunBesideOurs", "internal/agent/host.TestHookOfTheMachinesEnvironmentRunsBesideOurs",
		"internal/agent/host.TestHookIsRunAsItsKindIs", "internal/agent/host.TestJobDoesNotChangeTheEnvironmentOfTheNext",
		"internal/agent/host.TestWholeEnvIsKeptBesideOurs", "internal/test/machinetest.TestImageWithHooksOfItsOwn"}},
	{"R7", "an image sets PATH, proxies and variables for its jobs", []string{
		"internal/agent/host.TestEnvironmentOfTheImageReachesTheJob", "internal/agent/host.TestProxiesOfTheImage",
		"internal/agent/host.TestSettingsOfTheImageStayWhenTheProgramIsInstalled", "internal/agent/bootstrap.TestScriptTakesTheProxiesOfTheImage",
		"store.TestEnvironmentOfARegistration", "api.TestBootAnswersTheEnvironmentOfTheRegistration",
		"internal/agent.TestEnvironmentOfTheRegistrationReachesEachProgram", "internal/agent.TestEnvironmentIsReadByOldAndNew",
		"internal/test/machinetest.TestEnvironmentOfTheImageReachesItsJobs", "internal/test/machinetest.TestMachineBehindAProxy"}},
	{"R8", "GitHub refuses a registration, for one of several reasons", []string{
		"worker.TestEachRefusalIsToldInGitHubsWordsWithWhatToDo", "worker.TestFullGroupIsWaitedFor",
		"internal/github.TestEachRefusalOfARegistrationHasItsKindAndGitHubsWords", "internal/github.TestGitHubsWordsHoldNoSecret",
		"internal/github.TestAnswerWithAConfigIsNeverReadIntoAnError"}},
	{"R9", "GitHub answers a registration with 409 for another reason than the name", []string{"worker.TestConflictThatIsNotTheNameIsBounded"}},
	{"R10", "GitHub is down for half an hour, and machines wait for their config", []string{
		"internal/sim.TestGitHubThatIsDownIsTheReasonThatIsTold", "worker.TestGitHubDownIsToldAsSuchAndSpendsFewNames",
		"store.TestRunnerWithoutConfigEndsForTheTrueCause"}},
	{"R11", "GitHub will refuse a version of the runner program within a week", []string{
		"reaper.TestVersionThatEndsWithinAWeekIsAlarmedOnceADay", "reaper.TestVersionOfWhichGitHubTellsNothingIsNoAlarm",
		"internal/github.TestDeprecationTellsTheEndOfAVersion"}},
	{"R12", "GitHub refuses to delete many runners that drain with a job, and each call counts", []string{
		"internal/sim.TestTwentyBusyRunnersThatDrainLeaveGitHubAlone", "reaper.TestBusyGhostsCost27DeletesEachAndOneAlarmEach",
		"store.TestBusyRegistrationCosts27DeletesInSixHours", "internal/github.TestEndsOfBusyRunnersLeaveTheHourToRegistrations",
		"internal/github.TestPurposeBeyondItsPartMakesNoCall", "internal/github.TestWhatCanWaitLeavesTheRestOfTheHour",
		"internal/github.TestBudgetInTheDocumentsIsThatOfTheCode"}},
	{"R13", "GitHub calls a runner busy for ever", []string{
		"internal/sim.TestMachineThatDoesNotRunIsNotBusy", "internal/sim.TestRunnerThatGitHubCallsBusyForEverIsTold",
		"reaper.TestMachineThatDoesNotRunEndsAtOnceWhateverGitHubSays", "reaper.TestBusyGhostsCost27DeletesEachAndOneAlarmEach",
		"reaper.TestSilentMachineWithAJobIsAlarmedOnce", "reaper.TestLongJobOfADrainingRunnerIsNoAlarm", "store.TestSuspect"}},
	{"R14", "a repository is renamed, and another one gets its old name", []string{
		"internal/github.TestRenamedRepositoryKeepsItsRunnersThoughAnotherHasItsName", "internal/github.TestRunnerThatWasRegisteredByNameIsDeletedByID",
		"internal/github/simgithub.TestCallsByAnOldNameReachItsNewRepository"}},
	{"R15", "GitHub deletes the registration of a runner whose job began a moment before", []string{
		"internal/sim.TestJobThatBeganBeforeItsRegistrationWasDeletedRunsToItsEnd", "reaper.TestJobWhoseRegistrationWasDeletedFinishes",
		"store.TestNextEndStep"}},

	// EC2.
	{"E1", "EC2 answers a launch with an error code that nobody knows", []string{
		"internal/fleet/ec2fleet.TestWhatEC2AnswersToALaunch", "worker.TestCodeThatNobodyKnowsIsAskedFiveTimesAndTold",
		"worker.TestOutageOfEC2IsWaitedForPatiently", "worker.TestRefusalIsToldInEC2sWordsAfterOneCall", "worker.TestNoCapacityIsToldInEC2sWords"}},
	{"E2", "EC2 ends a machine as soon as it is launched", []string{
		"reaper.TestMachineThatEC2EndsAtOnceIsToldInTheNextRun", "reaper.TestLastTryFailsWithEC2sReason",
		"reaper.TestSpotMachineThatDiesOfSpotIsTriedOnDemand", "reaper.TestMachineThatIsEndingIsGivenUpAtOnce",
		"reaper.TestMachineThatDiesBetweenBootAndOnlineIsTold", "reaper.TestMachinesThatBootAreAskedForAtOnceAndOnlineOnesNotAtAll",
		"worker.TestRequestWhoseSpotMachineDiedIsLaunchedOnDemand", "worker.TestMachineThatWasDeadWhenItsTokenWasAskedForIsToldInEC2sWords",
		"store.TestWhetherADeathIsWorthAnotherMachine", "internal/sim.TestMachineThatEC2EndsAtOnceFailsItsRequestWithEC2sReason",
		"internal/sim.TestSpotMachineThatDiesAtOnceIsReplacedOnDemand"}},
	{"E4", "an image is gone, and its SSM parameter names another one", []string{
		"internal/fleet/ec2fleet.TestParameterOfAnImageThatIsGoneIsReadAgain", "worker.TestImageThatIsGoneIsResolvedOnceMore",
		"worker.TestImageThatIsGoneFailsWithEC2sWords", "worker.TestImageThatIsGoneAndCannotBeResolvedNowIsWaitedFor",
		"internal/sim.TestImageThatIsReplacedUnderItsParameterIsFound"}},
	{"E5", "an image is of another architecture than an instance type", []string{
		"worker.TestTypesOfAnotherArchitectureArePassedOver", "worker.TestRefusedTypeIsNotTriedOnDemandEither",
		"worker.TestNoTypeOfTheImagesArchitectureFailsWithEC2sWords", "worker.TestTypeThatHadNoCapacityIsTriedAgainBesideOnesOfAnotherArchitecture",
		"worker.TestSubnetThatIsGoneIsPassedOver", "internal/sim.TestImageOfAnotherArchitectureFindsItsType"}},
	{"E6", "somebody edits the tags of a busy machine", []string{
		"reaper.TestBusyMachineWhoseTagsWereEditedLivesAndIsAlarmed", "reaper.TestMachineWhoseTagsWereEditedEndsWithItsRunner",
		"reaper.TestNoMachineIsEndedWhileTheLiveRecordsCannotBeRead", "reaper.TestRecordOfAnotherPlaceClaimsNoMachine",
		"internal/sim.TestBusyMachineWhoseTagsAreEditedKeepsItsJob"}},
	{"E8", "EC2's spot role may not use the KMS key of a volume", []string{
		"reaper.TestMachineThatEC2EndsAtOnceIsToldInTheNextRun", "store.TestWhetherADeathIsWorthAnotherMachine",
		"internal/test/terraformtest.TestSpotRoleMayUseTheKeysOfVolumes"}},
	{"E9", "a connection is reset while its function is frozen", []string{
		"internal/aws/awshttp.TestCallOnAConnectionThatWasResetIsMadeOnAnother", "internal/aws/awshttp.TestCallOnAFreshConnectionIsNotRepeated",
		"internal/github.TestDeletionOnAConnectionThatWasResetIsMadeOnAnother", "internal/github.TestMintOnAConnectionThatWasResetIsNotRepeated",
		"internal/fleet/ec2fleet.TestLaunchOnAConnectionThatWasCutIsOneMachine"}},

	// Lambda, and what is around the functions and machines.
	{"L1", "Lambda takes a worker that sends to its own queue for a loop, and refuses the 17th invocation", []string{
		"internal/test/awstest/runtimeapi.TestSeventeenthInvocationOfAChainIsRefused", "internal/test/e2e.TestWaitForASlotIsNoLoopToLambda",
		"internal/test/e2e.TestWaitForTheQuotaIsNoChainOfMessages", "internal/test/terraformtest.TestOnlyTheWorkerMayBeInvokedByItsOwnMessages",
		"internal/sim.TestWaitForTheQuotaUntilGiveUpIsTheReapers", "worker.TestWaitForTheQuotaIsLeftToTheReaper",
		"reaper.TestRequestThatWaitsForItsNextTryIsLeftAlone", "reaper.TestOtherWaitsAreTheWorkersUntilTheyAreForgotten", "store.TestReviewRequest"}},
	{"L2", "one caller uses up the throttle of a route, which is that of all", []string{
		"api.TestFloodIsRefusedBeforeAnythingIsRead", "api.TestStrangerUsesUpNobodysCalls", "api.TestWhatCannotBeAMachinesTokenIsRefusedUnread",
		"api.TestOrdinaryCallsAreNeverTooMany", "internal/test/terraformtest.TestHeartbeatsHaveRoomBesideFloods",
		"internal/sim.TestMachineThatFloodsEndsAtItsHardLimitAndHarmsNobody"}},
	{"L3", "one call of a run of the reaper is throttled, or answered with 502", []string{
		"internal/test/terraformtest.TestPassingFaultOfTheReaperAlarmsOnlyIfItLasts", "internal/test/terraformtest.TestFactsAlarmAtOnce",
		"reaper.TestFaultThatPassesRaisesNoAlarm", "reaper.TestMachineThatCannotBeTerminatedStaysEndingAndAlarms",
		"reaper.TestUnreadableRegistrationStopsNoSweep"}},
	{"L4", "an alarm has no datapoint yet when it is first deployed", []string{"internal/test/terraformtest.TestNoAlarmAtTheFirstDeploy", "internal/test/terraformtest.TestReaperThatStopsIsTold"}},
	{"L5", "somebody added subnets to the default VPC, and GitHub's allow list wants a fixed address of the functions", []string{
		"internal/test/terraformtest.TestFunctionsMayDoTheirOwnWorkAlone", "internal/test/terraformtest.TestRolesAllowTheCallsOfTheCode",
		"internal/test/terraformtest.TestFirstExampleTakesDefaultSubnetsAlone"}},
	{"L6", "EC2 compares the owner of an image by its alias where it has one", []string{"internal/test/terraformtest.TestBorrowedRoleMayLaunchOrEndWhatIsOurs", "internal/test/terraformtest.TestOwnersOfImagesAreExplained"}},
	{"L7", "the network service of a machine starts again, and drops routing rules that are not its own", []string{"internal/test/machinetest.TestMetadataStaysClosedWhenTheNetworkIsRestarted", "internal/agent/host.TestMetadataServiceIsClosedInEachWayThatWorks"}},
	{"L8", "a region is in another partition of AWS", []string{
		"internal/test/terraformtest.TestPatternsTakeEveryPartition", "internal/test/terraformtest.TestSessionPoliciesServeEveryPartition",
		"internal/aws/assume.TestUsualRoleIsOfTheRegionsPartition", "api.TestRegionsOfEveryPartitionAreNames"}},

	// What may starve or strand others.
	{"S1", "a job with root has its machine say hundreds of things a second, for hours and past its hard limit", []string{
		"internal/sim.TestMachineThatFloodsEndsAtItsHardLimitAndHarmsNobody", "store.TestFloodIsBoundedByTheRecordAlone",
		"store.TestFloodOfConfigsIsBounded", "store.TestPastItsHardLimitNothingIsWritten", "store.TestNormalLifeIsFarFromTheBudget",
		"store.TestWhatTheBudgetDoesNotTakeIsSaidAgain", "api.TestBudgetHoldsOverProcesses", "api.TestFloodOfNotesIsOneAlarmAndIsCounted",
		"api.TestPastItsHardLimitAMachineIsStoppedAndNothingIsWritten", "api.TestPastExpNoteAndBootingWriteNothing",
		"internal/agent.TestCallThatIsThrottledIsMadeAgainAfterRetryAfter"}},
	{"S2", "thousands of requests are overdue, and no run of the reaper gets through them", []string{
		"internal/sim.TestBacklogOfTenThousandRequestsDelaysNoEndAndIsSentInThreePeriods", "internal/sim.TestBacklogThatNoRunGetsThroughDelaysNoEndAndRotates",
		"internal/sim.TestMessagesThatTheQueueDoesNotTakeAreToldAndSentAgain", "internal/sim.TestProtectedMachineHoldsUpNoOther",
		"reaper.TestBacklogOfRequestsKeepsNoEndAndNoSweepWaiting", "reaper.TestRequestsThatWereLeftComeFirstInTheNextRun", "reaper.TestRepositoriesTakeTurns",
		"reaper.TestEndsTakeAsManyRoundsForAHundredAsForOne", "reaper.TestFloodedRecordEndsAllTheSame", "reaper.TestFiveThousandRunnersAtTheirHardLimitEndInTwoPeriods",
		"reaper.TestRunsThatAreTooShortComeToEveryRunner", "reaper.TestShardsLookAtEachItemOnce", "store.TestResentRequestMovesBehindAllThatWaitLonger",
		"cmd/garo-reaper.TestReportIsOneLine"}},
	{"S3", "one repository files thousands of starts at once", []string{
		"internal/sim.TestRepositoryThatFilesManyStartsHasFewOpen", "internal/sim.TestBacklogOfTenThousandRequestsDelaysNoEndAndIsSentInThreePeriods",
		"internal/sim.TestNobodyIsBehindAnotherRepository", "store.TestRepositoriesWaitForTheirFirstLaunchAlone", "reaper.TestRepositoriesTakeTurns"}},
	{"S4", "an account is removed, or its registration breaks, while its runners live", []string{
		"internal/sim.TestRunnersOfARemovedAccountEndAsEver", "internal/sim.TestOpenRequestsOfARemovedAccountFailAtOnce",
		"internal/sim.TestRunnersOfAnAccountThatRefusesUsEndByTime", "internal/sim.TestAccountThatComesBackIsUsedAgain",
		"internal/reach.TestAccountThatIsGoneIsReachedAsAtItsLastLaunch", "store.TestIntentKeepsHowItsAccountIsReached",
		"store.TestUnreachedAccountIsToldOnceADay", "store.TestUnseenRunnerIsOverWhenItsOwnTimerMustHaveEndedIt", "store.TestQuotaIsReadByOldAndNew",
		"reaper.TestDeletedRoleIsNeverSilent", "reaper.TestAccountOfWhichNothingLivesLeavesTheIndexWithoutAnAlarm",
		"worker.TestClosedAndRemovedAccountsLaunchNothing", "worker.TestIntentOfARemovedAccountIsGivenUpAndItsMachineLookedFor",
		"worker.TestFaultyRegistrationIsWaitedFor", "internal/intake.TestFaultyAndClosedAccountsStopNobodyElse"}},
	{"S5", "a key is taken away at once while launches are open and machines live", []string{
		"internal/sim.TestLaunchWhoseKeyIsLostIsReplaced", "internal/sim.TestRunnerWhoseKeyIsLostKeepsItsJobAndEnds",
		"worker.TestIntentWhoseKeyIsLostIsGivenUpForTheCurrentOne", "worker.TestMachineWhoseKeyIsLostIsNotRegistered",
		"worker.TestKeyThatAWorkerDoesNotKnowYetIsReadAndNotGivenUp", "worker.TestTryAfterAFailureReadsTheKeysAnew",
		"store.TestLostKeySpendsNoTryOfItsRequest", "internal/agent.TestMachineThatTheAPINoLongerKnowsEndsAfterItsJob"}},
	{"S6", "a start is repeated after its account's defaults changed", []string{
		"api.TestReplayAfterTheDefaultMarketChangedGetsItsRecord", "internal/intake.TestReplayMatchesWhateverTheDefaultsBecame",
		"internal/intake.TestBodyHashIsThatOfOlderVersions"}},
	{"S7", "strangers cause runs of a public repository: by issues, forks, stars or comments", []string{
		"internal/intake.TestEventsAreAnAllowList", "api.TestEventThatStrangersCauseIsRefusedByItsNameAndTheField"}},

	// Users and operators.
	{"U1", "nobody polls a request", []string{
		"internal/sim.TestReadyIsRecordedWithoutAnybodyWhoLooks", "worker.TestConfirmedRunnerAndItsRequestAreReadyInOneCommit",
		"store.TestReadyAtIsWhenTheRunnerWasOnlineWheneverSomebodyLooks", "reaper.TestRequestThatSharesALaunchIsReadyOnceItsRunnerHasBeenOnline",
		"worker.TestJobMakesItsRequestReadyThoughGitHubIsAway"}},
	{"U3", "a commit of the action belongs to no release", []string{
		"internal/test/actiontest.TestActionOfAnyCommitBuildsTheProgramOnce", "internal/test/actiontest.TestActionOfAnyCommitSaysThatItNeedsGo",
		"internal/test/actiontest.TestShell"}},
	{"U4", "a workflow asks `garo local` with a token of a local issuer", []string{
		"cmd/garo.TestWorkflowOfTheLocalIssuerGetsARunnerOfTheBuiltInAccount", "cmd/garo.TestDocumentedRegistrationIsTakenAndServes",
		"internal/local.TestWorkflowIsLetInByItsIDToken"}},
	{"U5", "an operator rotates the control plane's keys", []string{"internal/aws/ssmparam.TestRotationAsDocumentedRefusesNoMachine"}},
	{"U6", "a token is refused, for one of many reasons", []string{
		"api.TestRefusedIDTokenIsToldWhy", "api.TestRefusedSecretTokenIsToldNothing", "api.TestIDTokenWhereNoIssuerIsTrusted",
		"api.TestGuideNamesEveryReasonOf401"}},
	{"U7", "a request is tried twice, has its runner after its time, or has one that ended", []string{
		"api.TestEachAttemptIsListedOnce", "api.TestRequestIsNotReadyAfterItsTime", "store.TestOnlineAfterGiveUpIsExpiredAndNotReady", "store.TestShareable",
		"store.TestRulesKeepTheirPromises", "store/dynamostore.TestEndedRunnerIsRecordedWithoutItsConfig"}},
	{"U8", "the machine that runs the tests is busy", []string{
		"internal/demo.TestLinesAreInOrderHoweverLateTheyAreKnown", "internal/demo.TestStoryHoldsEveryPromise",
		"internal/test/awstest/runtimeapi.TestWaitingFunctionIsFrozen"}},
}

func TestEveryRealFaultIsThereOnceWithTestsThatExist(t *testing.T) {
	known := map[string]map[string]bool{}
	var ids []string
	for _, f := range realFaults {
		ids = append(ids, f.id)
		if f.what == "" || len(f.tests) == 0 {
			t.Errorf("%s says nothing, or names no test", f.id)
		}
		exist(t, known, f.what, f.tests)
	}
	if !slices.Equal(ids, realIDs) {
		t.Errorf("the rows are %v, want %v", ids, realIDs)
	}
}

// realTable is the second table of docs/reliability-tables.md.
func realTable() string {
	var b strings.Builder
	b.WriteString("| # | what the real parts do | shown by |\n|---|---|---|\n")
	for _, f := range realFaults {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", f.id, f.what, "`"+strings.Join(f.tests, "`, `")+"`")
	}
	return b.String()
}

func TestGoldenRealFaultsAreInTheDocs(t *testing.T) {
	inTheDocs(t, "real", realTable())
}
