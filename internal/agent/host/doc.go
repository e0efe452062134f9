// Package host is the machine that the agent runs on: Linux on EC2, whose runner
// program is actions/runner.
//
// The runner program and the agent's process do not end together. Between them
// stands the keeper, the agent's own binary started a second time: it starts the
// runner program as the unprivileged user, waits for it, and leaves its exit code
// in a file. So anyone who follows a program, the process that started it or the
// next one, does so in the same way: by its log, its hook, its lock and its exit
// code, all below a directory that only root can read.
//
// What runs as the runner's user can forge what the hook says, and end the
// program. Neither lengthens the machine's life past what the API allows.
package host
