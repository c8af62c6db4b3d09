package contract

// Methods are those that a route can name, in the order in which they are shown.
func Methods() []string {
	return []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
}
