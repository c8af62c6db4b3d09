// Package language is what an operator may write: its syntax, its rules and its
// faults. Parse returns a valid gateway or every fault with its position; it
// reads no files, no environment and no clock, so the same sources give the same
// value. A Parser returns the same at the cost of what changed.
package language
