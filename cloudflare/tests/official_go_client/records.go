package main

import (
	"context"
	"strings"

	"github.com/cloudflare/cloudflare-go/v6"
	"github.com/cloudflare/cloudflare-go/v6/dns"
	"github.com/cloudflare/cloudflare-go/v6/zones"
)

const owned = "diptych:test"

func address(content string) dns.ARecordParam {
	return dns.ARecordParam{
		Name:    cloudflare.F("go"),
		Type:    cloudflare.F(dns.ARecordTypeA),
		Content: cloudflare.F(content),
		TTL:     cloudflare.F(dns.TTL1),
	}
}

func alias(content string) dns.CNAMERecordParam {
	return dns.CNAMERecordParam{
		Name:    cloudflare.F("go"),
		Type:    cloudflare.F(dns.CNAMERecordTypeCNAME),
		Content: cloudflare.F(content),
		TTL:     cloudflare.F(dns.TTL1),
	}
}

func records(ctx context.Context, client *cloudflare.Client, zone *zones.Zone) {
	records, id := client.DNS.Records, cloudflare.F(zone.ID)
	first := address("192.0.2.1")
	first.Proxied, first.Comment = cloudflare.F(true), cloudflare.F(owned)
	made := must(records.New(ctx, dns.RecordNewParams{ZoneID: id, Body: first}))
	expect("the name is completed", made.Name, "go."+zone.Name)
	expect("an id of 32 digits", len(made.ID), 32)
	expect("dates are dates", made.CreatedOn.Year() >= 2024, true)
	expect("a proxied record is proxiable", []bool{made.Proxied, made.Proxiable}, []bool{true, true})

	edited := must(records.Edit(ctx, made.ID, dns.RecordEditParams{ZoneID: id, Body: address("192.0.2.2")}))
	expect("an edit keeps the rest", []any{edited.Content, edited.Proxied, edited.Comment}, []any{"192.0.2.2", true, owned})
	replaced := must(records.Update(ctx, made.ID, dns.RecordUpdateParams{ZoneID: id, Body: address("192.0.2.3")}))
	expect("an update replaces all", []any{replaced.Content, replaced.Proxied, replaced.Comment}, []any{"192.0.2.3", false, ""})
	named := must(records.List(ctx, dns.RecordListParams{
		ZoneID: id, Name: cloudflare.F(dns.RecordListParamsName{Exact: cloudflare.F("go." + zone.Name)}),
	}))
	expect("listed by exact name", len(named.Result), 1)
	expect("it is the one that was made", named.Result[0].ID, made.ID)
	expect("got by id", must(records.Get(ctx, made.ID, dns.RecordGetParams{ZoneID: id})).Content, "192.0.2.3")

	_, err := records.New(ctx, dns.RecordNewParams{ZoneID: id, Body: address("192.0.2.3")})
	refused("an identical record", err, 81058)
	longer := address("192.0.2.3")
	longer.TTL = cloudflare.F(dns.TTL(60))
	_, err = records.New(ctx, dns.RecordNewParams{ZoneID: id, Body: longer})
	refused("the same record with another TTL", err, 81057)
	_, err = records.New(ctx, dns.RecordNewParams{ZoneID: id, Body: alias("x.example.net")})
	refused("an alias beside an address", err, 81053)

	batch := must(records.Batch(ctx, dns.RecordBatchParams{
		ZoneID:  id,
		Deletes: cloudflare.F([]dns.RecordBatchParamsDelete{{ID: cloudflare.F(made.ID)}}),
		Posts:   cloudflare.F([]dns.RecordBatchParamsPostUnion{alias("x.example.net")}),
	}))
	expect("a batch deletes, then posts", []string{batch.Deletes[0].ID, string(batch.Posts[0].Type)}, []string{made.ID, "CNAME"})
	second := batch.Posts[0].ID
	_, err = records.Batch(ctx, dns.RecordBatchParams{
		ZoneID:  id,
		Deletes: cloudflare.F([]dns.RecordBatchParamsDelete{{ID: cloudflare.F(second)}, {ID: cloudflare.F(strings.Repeat("0", 32))}}),
		Posts:   cloudflare.F([]dns.RecordBatchParamsPostUnion{address("192.0.2.9")}),
	})
	refused("a batch with an unknown id", err, 81044)
	all := must(records.List(ctx, dns.RecordListParams{ZoneID: id}))
	expect("and it changed nothing", []any{len(all.Result), all.Result[0].ID}, []any{1, second})
	_, err = records.New(ctx, dns.RecordNewParams{ZoneID: id, Body: address("192.0.2.9")})
	refused("an address beside an alias", err, 81054)

	must(records.Delete(ctx, second, dns.RecordDeleteParams{ZoneID: id}))
	_, err = records.Delete(ctx, second, dns.RecordDeleteParams{ZoneID: id})
	refused("a deleted record is gone", err, 81044)
}
