package gateway

func (g *Gateway) eventRoutes() {}
