// Package config is the operator's gateway as a value: the model that package
// language makes of the files, their sources, and the faults that it finds.
// Invariant: nothing in it reads a file, the environment or the clock.
package config
