package strictyaml

// Suggest gives the words "; did you mean …?" when a candidate is near, else "".
func Suggest(word string, candidates []string) string {
	if near := Nearest(word, candidates); near != "" {
		return "; did you mean \"" + near + "\"?"
	}
	return ""
}

// Nearest is the candidate that is likeliest meant, or "" when none is near.
func Nearest(word string, candidates []string) string {
	best, distance := "", len(word)/3+1
	for _, c := range candidates {
		if d := edits(word, c, distance); d < distance {
			best, distance = c, d
		}
	}
	return best
}

// edits is the number of characters to insert, remove, change or swap with
// their neighbour that make a into b (optimal string alignment), or bound when
// it is not below it.
func edits(a, b string, bound int) int {
	if len(a) > 100 || len(b) > 100 || len(a)-len(b) >= bound || len(b)-len(a) >= bound {
		return bound
	}
	before, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		least := next[0]
		for j := range len(b) {
			change := row[j]
			if a[i] != b[j] {
				change++
			}
			next[j+1] = min(change, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
			least = min(least, next[j+1])
		}
		if least >= bound {
			return bound
		}
		before, row, next = row, next, before
	}
	return min(row[len(b)], bound)
}

// Clip is the beginning of a written word, as a message may show it.
func Clip(text []byte) string {
	const most = 80
	if len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(text)
}
