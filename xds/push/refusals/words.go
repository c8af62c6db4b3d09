package refusals

import "strings"

// maxWords bounds what is shown of a refusal: Envoy may dump a whole resource.
const maxWords = 300

// Clip cuts a refusal to what a log line holds.
func Clip(why string) string {
	if len(why) > maxWords {
		return strings.ToValidUTF8(why[:maxWords], "") + "…"
	}
	return why
}

// Blames says whether a refusal names a resource as its cause. Envoy's words are for people,
// but of clusters and listeners it lists who is to blame, and a cluster that it
// refuses for its balancing (the ghosts) always comes like that; a resource
// whose name merely occurs is not blamed.
func Blames(why, name string) bool {
	_, list, found := strings.Cut(why, "(s) ")
	return found && (strings.HasPrefix(list, name+": ") || strings.Contains(list, ", "+name+": "))
}
