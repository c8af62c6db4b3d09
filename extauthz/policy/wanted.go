package policy

// Wanted lists what could have admitted a request of this method: permissions,
// and the ids of rules in CEL. It is for the log, where a refusal because no
// rule admits has no rule to name.
func (p *Policy) Wanted(method string) []string {
	var out []string
	for i := range p.rules {
		rule := &p.rules[i]
		switch {
		case rule.deny || rule.shadow || !rule.applies(method):
		case rule.permission != "":
			out = append(out, rule.permission)
		default:
			out = append(out, rule.id)
		}
	}
	return out
}
