// Package contract holds what two parts of Tollgate must agree on and no
// protobuf says. Invariant: a fact stands here once, as data, and nothing here
// decides anything.
package contract
