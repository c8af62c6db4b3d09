// Package config is the operator's gateway file: its syntax, its rules and its
// faults. Parse returns a valid *Gateway or every fault with its position; it
// reads no files, no environment and no clock, so the same sources give the
// same value.
package config
