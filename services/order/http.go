package order

import (
	"net/http"

	"tollgate/services/kit/fault"
	"tollgate/services/kit/httpx"
)

// httpDoor speaks to clients behind the gateway.
type httpDoor struct{ orders *service }

func (d *httpDoor) create(w http.ResponseWriter, r *http.Request) error {
	n, err := httpx.ReadJSON[NewOrder](r)
	if err != nil {
		return err
	}
	keys := r.Header.Values("Idempotency-Key")
	if len(keys) > 1 {
		return fault.Invalid("Idempotency-Key: must be there once")
	}
	o, err := d.orders.create(r.Context(), n, r.Header.Get("Idempotency-Key"))
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/orders/"+o.ID)
	return httpx.Reply(w, r, http.StatusCreated, o, "")
}

func (d *httpDoor) get(w http.ResponseWriter, r *http.Request) error {
	o, err := d.orders.get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return httpx.Reply(w, r, http.StatusOK, o, "")
}

func (d *httpDoor) remove(w http.ResponseWriter, r *http.Request) error {
	if err := d.orders.remove(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *httpDoor) list(w http.ResponseWriter, r *http.Request) error {
	size, token, err := httpx.PageQuery(r)
	if err != nil {
		return err
	}
	orders, next, err := d.orders.list(r.Context(), size, token)
	if err != nil {
		return err
	}
	return httpx.Reply(w, r, http.StatusOK, orders, next)
}
