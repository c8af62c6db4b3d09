package user

import (
	"context"

	userv1 "tollgate/api/user/v1"
)

// grpcDoor speaks to peers.
type grpcDoor struct {
	userv1.UnimplementedUserServiceServer
	users *service
}

func (d *grpcDoor) CreateUser(ctx context.Context, req *userv1.CreateUserRequest) (*userv1.CreateUserResponse, error) {
	u, err := d.users.create(ctx, NewUser{Name: req.GetName(), Email: req.GetEmail()})
	if err != nil {
		return nil, err
	}
	return &userv1.CreateUserResponse{User: message(u)}, nil
}

func (d *grpcDoor) GetUser(ctx context.Context, req *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	u, err := d.users.get(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &userv1.GetUserResponse{User: message(u)}, nil
}

func (d *grpcDoor) ListUsers(ctx context.Context, req *userv1.ListUsersRequest) (*userv1.ListUsersResponse, error) {
	users, next, err := d.users.list(ctx, int(req.GetPageSize()), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := &userv1.ListUsersResponse{NextPageToken: next}
	for _, u := range users {
		resp.Users = append(resp.Users, message(u))
	}
	return resp, nil
}

func message(u User) *userv1.User {
	return &userv1.User{Id: u.ID, Tenant: u.Tenant, Name: u.Name, Email: u.Email, Created: u.Created}
}
