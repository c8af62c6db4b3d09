//go:build race

package celenv_test

// slower is how much dearer everything is under the race detector.
const slower = 20
