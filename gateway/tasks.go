package gateway

func (g *Gateway) taskRoutes() {}
