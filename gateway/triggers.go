package gateway

func (g *Gateway) triggerRoutes() {}
