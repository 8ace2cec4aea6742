package main

import (
	"context"

	"github.com/cloudflare/cloudflare-go/v6"
	"github.com/cloudflare/cloudflare-go/v6/healthchecks"
	"github.com/cloudflare/cloudflare-go/v6/load_balancers"
	"github.com/cloudflare/cloudflare-go/v6/zero_trust"
	"github.com/cloudflare/cloudflare-go/v6/zones"
)

func healthChecks(ctx context.Context, client *cloudflare.Client, zone *zones.Zone) {
	checks, id := client.Healthchecks, cloudflare.F(zone.ID)
	check := must(checks.New(ctx, healthchecks.HealthcheckNewParams{
		ZoneID: id,
		QueryHealthcheck: healthchecks.QueryHealthcheckParam{
			Name:      cloudflare.F("east"),
			Address:   cloudflare.F("127.0.0.1"),
			Type:      cloudflare.F("TCP"),
			TCPConfig: cloudflare.F(healthchecks.TCPConfigurationParam{Port: cloudflare.Int(1)}),
		},
	}))
	listed := must(checks.List(ctx, healthchecks.HealthcheckListParams{ZoneID: id}))
	expect("health checks are listed", []any{len(listed.Result), listed.Result[0].ID}, []any{1, check.ID})
	got := must(checks.Get(ctx, check.ID, healthchecks.HealthcheckGetParams{ZoneID: id}))
	expect("a health check by id", []any{got.Name, got.Address, got.TCPConfig.Port}, []any{"east", "127.0.0.1", int64(1)})
	must(checks.Delete(ctx, check.ID, healthchecks.HealthcheckDeleteParams{ZoneID: id}))
}

func loadBalancers(ctx context.Context, client *cloudflare.Client, zone *zones.Zone) {
	balancers, account := client.LoadBalancers, cloudflare.F(zone.Account.ID)
	monitor := must(balancers.Monitors.New(ctx, load_balancers.MonitorNewParams{
		AccountID: account,
		Type:      cloudflare.F(load_balancers.MonitorNewParamsTypeHTTP),
		Path:      cloudflare.F("/lease"),
		Interval:  cloudflare.Int(60),
	}))
	expect("a monitor with defaults", []any{monitor.Path, monitor.Interval, monitor.Method}, []any{"/lease", int64(60), "GET"})
	pool := func(name, address string) string {
		made := must(balancers.Pools.New(ctx, load_balancers.PoolNewParams{
			AccountID: account,
			Name:      cloudflare.F(name),
			Monitor:   cloudflare.F(monitor.ID),
			Origins: cloudflare.F([]load_balancers.OriginParam{{
				Name: cloudflare.F(name), Address: cloudflare.F(address), Enabled: cloudflare.F(true),
			}}),
		}))
		expect("a pool has its origin", []string{made.Origins[0].Address, made.Monitor}, []string{address, monitor.ID})
		return made.ID
	}
	east, west := pool("go-east", "192.0.2.1"), pool("go-west", "192.0.2.2")
	pools := must(balancers.Pools.List(ctx, load_balancers.PoolListParams{AccountID: account}))
	expect("pools are listed", len(pools.Result), 2)

	made := must(balancers.New(ctx, load_balancers.LoadBalancerNewParams{
		ZoneID:       cloudflare.F(zone.ID),
		Name:         cloudflare.F("go-balanced." + zone.Name),
		DefaultPools: cloudflare.F([]load_balancers.DefaultPoolsParam{east, west}),
		FallbackPool: cloudflare.F(west),
		Proxied:      cloudflare.F(true),
	}))
	expect("a load balancer in the order of its pools", made.DefaultPools, []load_balancers.DefaultPools{east, west})
	turned := must(balancers.Edit(ctx, made.ID, load_balancers.LoadBalancerEditParams{
		ZoneID:       cloudflare.F(zone.ID),
		DefaultPools: cloudflare.F([]load_balancers.DefaultPoolsParam{west, east}),
	}))
	expect("an edit turns the order and keeps the rest", []any{turned.DefaultPools, turned.Name, turned.Proxied},
		[]any{[]load_balancers.DefaultPools{west, east}, "go-balanced." + zone.Name, true})
	_, err := balancers.Pools.Delete(ctx, east, load_balancers.PoolDeleteParams{AccountID: account})
	refused("a pool that is in use", err, 1002)

	must(balancers.Delete(ctx, made.ID, load_balancers.LoadBalancerDeleteParams{ZoneID: cloudflare.F(zone.ID)}))
	for _, id := range []string{east, west} {
		must(balancers.Pools.Delete(ctx, id, load_balancers.PoolDeleteParams{AccountID: account}))
	}
	must(balancers.Monitors.Delete(ctx, monitor.ID, load_balancers.MonitorDeleteParams{AccountID: account}))
	_, err = balancers.Monitors.Get(ctx, monitor.ID, load_balancers.MonitorGetParams{AccountID: account})
	refused("a deleted monitor is gone", err, 1001)
}

func tunnels(ctx context.Context, client *cloudflare.Client, zone *zones.Zone) {
	tunnels, account := client.ZeroTrust.Tunnels.Cloudflared, cloudflare.F(zone.Account.ID)
	made := must(tunnels.New(ctx, zero_trust.TunnelCloudflaredNewParams{
		AccountID: account,
		Name:      cloudflare.F("go-east"),
		ConfigSrc: cloudflare.F(zero_trust.TunnelCloudflaredNewParamsConfigSrcCloudflare),
	}))
	expect("a tunnel without connectors is inactive", []string{made.Name, string(made.Status)}, []string{"go-east", "inactive"})
	token := must(tunnels.Token.Get(ctx, made.ID, zero_trust.TunnelCloudflaredTokenGetParams{AccountID: account}))
	expect("it has a token", len(*token) > 32, true)
	type ingress = zero_trust.TunnelCloudflaredConfigurationUpdateParamsConfigIngress
	configured := must(tunnels.Configurations.Update(ctx, made.ID, zero_trust.TunnelCloudflaredConfigurationUpdateParams{
		AccountID: account,
		Config: cloudflare.F(zero_trust.TunnelCloudflaredConfigurationUpdateParamsConfig{
			Ingress: cloudflare.F([]ingress{
				{Hostname: cloudflare.F("go." + zone.Name), Service: cloudflare.F("http://127.0.0.1:8080")},
				{Hostname: cloudflare.F(""), Service: cloudflare.F("http_status:404")},
			}),
		}),
	}))
	expect("its configuration is kept", configured.Config.Ingress[0].Service, "http://127.0.0.1:8080")
	listed := must(tunnels.List(ctx, zero_trust.TunnelCloudflaredListParams{
		AccountID: account, Name: cloudflare.F("go-east"), IsDeleted: cloudflare.F(false),
	}))
	expect("tunnels are listed by name", []any{len(listed.Result), listed.Result[0].ID}, []any{1, made.ID})
	must(tunnels.Delete(ctx, made.ID, zero_trust.TunnelCloudflaredDeleteParams{AccountID: account}))
	gone := must(tunnels.List(ctx, zero_trust.TunnelCloudflaredListParams{AccountID: account, IsDeleted: cloudflare.F(false)}))
	expect("a deleted tunnel is gone", len(gone.Result), 0)
}
