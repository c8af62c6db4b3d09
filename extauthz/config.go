package extauthz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/api/contract"
	"tollgate/extauthz/check"
	"tollgate/extauthz/credential"
	"tollgate/extauthz/policy"
	"tollgate/internal/adsclient"
	"tollgate/internal/celenv"
	"tollgate/internal/jwks"
)

// The resources that we live by.
const (
	TypeIdentity = contract.TypeIdentity
	TypePolicy   = contract.TypePolicy
)

const (
	// removedFor is how long a removed policy still decides: proxies may use
	// routes that name it until their next update.
	removedFor = contract.RemovedAfter
)

// state builds snapshots. Config, key file and time change it; each change
// gives one new snapshot.
type state struct {
	server *Server
	env    *celenv.Env

	mu       sync.Mutex
	identity *authzv1.Identity // nil: none yet
	policies map[string]*entry
	since    time.Time // of the first identity
	asked    bool      // the control plane answered about policies
	tried    bool      // the key file was looked at
	keysRead bool      // and was good
	// keysFault is why the key file is bad; nil: it is good, or not there.
	keysFault error
	issuers   map[string]*credential.Issuer
	remotes   map[string]*remote // by URL
	fileKeys  []credential.Key
	index     *credential.KeyIndex // nil: none yet
	stale     bool                 // roles or keys are others than those of index
	refused   map[string]string    // type → why its last update was refused
}

type entry struct {
	policy  *policy.Policy
	raw     []byte
	removed time.Time // zero: in force
}

type remote struct {
	*credential.Remote
	stop context.CancelFunc
}

// apply takes an update whole or refuses it whole.
func (s *state) apply(u adsclient.Update) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	switch u.Type {
	case TypeIdentity:
		err = s.applyIdentity(u)
	case TypePolicy:
		err = s.applyPolicies(u, time.Now())
	default:
		err = fmt.Errorf("type %s is not served here", u.Type)
	}
	if err != nil {
		s.server.metrics.refused.Inc()
		s.refused[u.Type] = err.Error()
		return err
	}
	delete(s.refused, u.Type)
	s.publish()
	return nil
}

// Faults are what an operator should mend while the last good policies decide.
func (s *Server) Faults() []string {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	var faults []string
	for _, url := range []string{TypeIdentity, TypePolicy} {
		if why, ok := s.state.refused[url]; ok {
			faults = append(faults, "the last policies or identities were refused: "+why)
		}
	}
	if why := s.state.keysFault; why != nil {
		faults = append(faults, strings.Split(why.Error()+" (the last good keys stay, so a revocation in it does not count)", "\n")...)
	}
	return faults
}

func (s *state) applyIdentity(u adsclient.Update) error {
	for _, r := range u.Upserts {
		if r.Name != contract.IdentityName {
			return fmt.Errorf("identity resource %q: the only name is %q", r.Name, contract.IdentityName)
		}
		next := &authzv1.Identity{}
		if err := r.Body.UnmarshalTo(next); err != nil {
			return fmt.Errorf("identity: %w", err)
		}
		if err := s.useIdentity(next); err != nil {
			return fmt.Errorf("identity: %w", err)
		}
	}
	// A removal without a successor keeps the last identity: a control plane
	// that lost its file must not turn every caller away.
	return nil
}

func (s *state) useIdentity(next *authzv1.Identity) error {
	roles := rolesOf(next)
	inline := map[string]credential.StaticKeys{}
	names := map[string]bool{}
	for _, i := range next.GetIssuers() {
		if err := checkIssuer(i); err != nil {
			return fmt.Errorf("issuer %q: %w", i.GetName(), err)
		}
		if names[i.GetName()] {
			return fmt.Errorf("issuer %q is there twice", i.GetName())
		}
		names[i.GetName()] = true
		if text := i.GetJwksInline(); text != "" {
			set, err := jwks.Parse([]byte(text))
			if err != nil {
				return fmt.Errorf("issuer %q: %w", i.GetName(), err)
			}
			inline[i.GetName()] = credential.StaticKeys(set)
		}
	}
	s.useRemotes(next)
	issuers := map[string]*credential.Issuer{}
	for _, i := range next.GetIssuers() {
		if old := s.unchanged(next, i); old != nil {
			issuers[i.GetName()] = old
			continue
		}
		var sources []credential.KeySource
		if extra, ok := s.server.extraKeys[i.GetName()]; ok {
			sources = append(sources, extra)
		}
		if set, ok := inline[i.GetName()]; ok {
			sources = append(sources, set)
		} else if r, ok := s.remotes[i.GetJwksUrl()]; ok {
			sources = append(sources, r.Remote)
		}
		issuers[i.GetName()] = credential.NewIssuer(i, roles, sources...)
	}
	if s.identity == nil {
		s.since = time.Now()
	}
	s.issuers, s.identity, s.stale = issuers, next, true
	s.server.keyFile.follow(s.keysPath(next))
	return nil
}

// unchanged returns the verifier of an issuer, with its warm cache, where
// nothing that it depends on is different.
func (s *state) unchanged(next *authzv1.Identity, i *authzv1.Issuer) *credential.Issuer {
	if s.identity == nil || !proto.Equal(&authzv1.Identity{Roles: s.identity.GetRoles()}, &authzv1.Identity{Roles: next.GetRoles()}) {
		return nil
	}
	for _, old := range s.identity.GetIssuers() {
		if proto.Equal(old, i) {
			return s.issuers[i.GetName()]
		}
	}
	return nil
}

func checkIssuer(i *authzv1.Issuer) error {
	switch {
	case i.GetName() == "" || i.GetIssuer() == "":
		return errors.New("it needs a name and an expected iss")
	case len(i.GetAudiences()) == 0:
		return errors.New("it has no audience: a token for anybody would pass")
	case len(i.GetTyp()) == 0:
		return errors.New("it names no typ: any kind of token would pass")
	case len(i.GetUserClaim()) == 0:
		return errors.New("it names no user claim: callers would have no name")
	case i.GetJwksInline() == "" && i.GetJwksUrl() == "":
		return errors.New("it has neither keys nor a jwks url")
	case i.GetJwksUrl() != "":
		return credential.CheckURL(i.GetJwksUrl())
	}
	return nil
}

// useRemotes starts what is new and stops what nobody names any more.
func (s *state) useRemotes(next *authzv1.Identity) {
	wanted := map[string]bool{}
	for _, i := range next.GetIssuers() {
		url := i.GetJwksUrl()
		if url == "" {
			continue
		}
		wanted[url] = true
		if _, running := s.remotes[url]; running {
			continue
		}
		source, err := credential.NewRemote(url, s.server.transport, s.server.log)
		if err != nil {
			continue // checkIssuer refused it before
		}
		s.remotes[url] = &remote{Remote: source, stop: s.server.background(source.Run)}
	}
	for url, r := range s.remotes {
		if !wanted[url] {
			r.stop()
			delete(s.remotes, url)
		}
	}
}

func (s *state) keysPath(next *authzv1.Identity) string {
	if s.server.cfg.KeysPath != "" {
		return s.server.cfg.KeysPath
	}
	store := next.GetApiKeys().GetStore()
	if store == "" || filepath.IsAbs(store) {
		return store
	}
	return filepath.Join(s.server.cfg.KeysBase, store)
}

// applyPolicies compiles before it changes anything. A policy whose issuer is
// not there yet is taken: types arrive in any order, and a refusal would never
// be offered again. Until then it answers 503.
func (s *state) applyPolicies(u adsclient.Update, now time.Time) error {
	fresh := map[string]*entry{}
	var faults []error
	for _, r := range u.Upserts {
		raw := r.Body.GetValue()
		if old, ok := s.policies[r.Name]; ok && string(old.raw) == string(raw) {
			fresh[r.Name] = &entry{policy: old.policy, raw: old.raw}
			continue
		}
		message := &authzv1.Policy{}
		err := r.Body.UnmarshalTo(message)
		if err == nil && message.GetName() != r.Name {
			err = fmt.Errorf("policy %s calls itself %q", r.Name, message.GetName())
		}
		var compiled *policy.Policy
		if err == nil {
			compiled, err = policy.Compile(s.env, message)
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		fresh[r.Name] = &entry{policy: compiled, raw: raw}
	}
	if len(faults) > 0 {
		return errors.Join(faults[:min(len(faults), 10)]...)
	}
	maps.Copy(s.policies, fresh)
	for _, name := range u.Removed {
		if e, ok := s.policies[name]; ok && e.removed.IsZero() {
			s.policies[name] = &entry{policy: e.policy, raw: e.raw, removed: now}
		}
	}
	s.asked = true
	return nil
}

// expire forgets policies that were removed long enough ago.
func (s *state) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.policies)
	maps.DeleteFunc(s.policies, func(_ string, e *entry) bool {
		return !e.removed.IsZero() && now.Sub(e.removed) >= removedFor
	})
	// A gateway of public routes alone has no policy, and then no answer comes.
	settled := !s.asked && s.identity != nil && now.Sub(s.since) > time.Second
	s.asked = s.asked || settled
	if len(s.policies) != before || settled {
		s.publish()
	}
}

// useKeys takes a new content of the key file.
func (s *state) useKeys(keys []credential.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fileKeys, s.stale, s.keysRead, s.tried = keys, true, true, true
	s.server.metrics.keys.Set(float64(len(keys)))
	s.publish()
}

// keysBad hears why the key file is bad, nil when it is not; its last good keys stay.
func (s *state) keysBad(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value := 0.0
	if why != nil {
		value = 1
	}
	s.server.metrics.keysBad.Set(value)
	s.keysFault = why
	if why != nil && !s.tried {
		s.tried = true
		s.publish()
	}
}

func (s *state) publish() {
	s.server.metrics.policies.Set(float64(len(s.policies)))
	if s.identity == nil {
		return
	}
	noFile := s.keysPath(s.identity) == ""
	if s.stale && (noFile || s.keysRead) {
		if s.index == nil {
			s.index = credential.NewKeyIndex(nil)
		}
		s.index, s.stale = s.index.Next(rolesOf(s.identity), s.fileKeys, s.server.cfg.ExtraKeys), false
	}
	next := &check.Snapshot{
		Policies:    make(map[string]*policy.Policy, len(s.policies)),
		Tenants:     s.identity.GetTenants(),
		Credentials: credential.NewVerifier(s.issuers, s.index, s.server.bulkhead),
		KeyHeader:   strings.ToLower(s.identity.GetApiKeys().GetHeader()),
	}
	for name, e := range s.policies {
		next.Policies[name] = e.policy
	}
	s.server.checks.Use(next)
	if s.asked && (noFile || s.tried) {
		s.server.becomeReady()
	}
}

func rolesOf(i *authzv1.Identity) policy.Roles {
	out := policy.Roles{}
	for name, p := range i.GetRoles() {
		out[name] = p.GetPermissions()
	}
	return out
}
