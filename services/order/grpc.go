package order

import (
	"context"

	orderv1 "tollgate/api/order/v1"
)

// grpcDoor speaks to peers.
type grpcDoor struct {
	orderv1.UnimplementedOrderServiceServer
	orders *service
}

func (d *grpcDoor) CreateOrder(ctx context.Context, req *orderv1.CreateOrderRequest) (*orderv1.CreateOrderResponse, error) {
	o, err := d.orders.create(ctx, NewOrder{UserID: req.GetUserId(), Item: req.GetItem(), AmountCents: req.GetAmountCents()}, "")
	if err != nil {
		return nil, err
	}
	return &orderv1.CreateOrderResponse{Order: message(o)}, nil
}

func (d *grpcDoor) GetOrder(ctx context.Context, req *orderv1.GetOrderRequest) (*orderv1.GetOrderResponse, error) {
	o, err := d.orders.get(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &orderv1.GetOrderResponse{Order: message(o)}, nil
}

func (d *grpcDoor) ListOrders(ctx context.Context, req *orderv1.ListOrdersRequest) (*orderv1.ListOrdersResponse, error) {
	orders, next, err := d.orders.list(ctx, int(req.GetPageSize()), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := &orderv1.ListOrdersResponse{NextPageToken: next}
	for _, o := range orders {
		resp.Orders = append(resp.Orders, message(o))
	}
	return resp, nil
}

func message(o Order) *orderv1.Order {
	return &orderv1.Order{Id: o.ID, Tenant: o.Tenant, UserId: o.UserID, Item: o.Item, AmountCents: o.AmountCents, Created: o.Created}
}
