package gateway

func (g *Gateway) jobRoutes() {}
