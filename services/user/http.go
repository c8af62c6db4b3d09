package user

import (
	"net/http"

	"tollgate/services/kit/httpx"
)

// httpDoor speaks to clients behind the gateway.
type httpDoor struct{ users *service }

func (d *httpDoor) create(w http.ResponseWriter, r *http.Request) error {
	n, err := httpx.ReadJSON[NewUser](r)
	if err != nil {
		return err
	}
	u, err := d.users.create(r.Context(), n)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/users/"+u.ID)
	return httpx.Reply(w, r, http.StatusCreated, u, "")
}

func (d *httpDoor) get(w http.ResponseWriter, r *http.Request) error {
	u, err := d.users.get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return httpx.Reply(w, r, http.StatusOK, u, "")
}

func (d *httpDoor) list(w http.ResponseWriter, r *http.Request) error {
	size, token, err := httpx.PageQuery(r)
	if err != nil {
		return err
	}
	users, next, err := d.users.list(r.Context(), size, token)
	if err != nil {
		return err
	}
	return httpx.Reply(w, r, http.StatusOK, users, next)
}
