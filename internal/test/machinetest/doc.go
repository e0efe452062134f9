// Package machinetest runs the agent as a machine on EC2 does. A machine here is
// a set of Linux namespaces: processes, mounts and network of its own, over a
// scratch copy of this computer's root. It gets the user data that a worker
// rendered and executes it as root, against the real API, worker and reaper;
// metadata service, GitHub, the runner program and the power switch are stand-ins
// that behave like the real ones.
//
// It has tests alone. They need Linux, root, iproute2 and curl. Without those they
// say so and prove nothing, except where CI=true is set and root is there: then
// that is a failure.
package machinetest
