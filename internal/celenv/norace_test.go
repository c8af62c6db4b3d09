//go:build !race

package celenv_test

const slower = 1
