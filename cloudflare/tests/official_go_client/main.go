// official-go-client uses the emulator through Cloudflare's own Go client, as it would Cloudflare, and ends at the first answer that is not
// what that client expects.
//
// Usage: official-go-client API_URL TOKEN ZONE
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/cloudflare/cloudflare-go/v6"
	"github.com/cloudflare/cloudflare-go/v6/option"
	"github.com/cloudflare/cloudflare-go/v6/zones"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: official-go-client API_URL TOKEN ZONE")
		os.Exit(2)
	}
	url, token, name := os.Args[1], os.Args[2], os.Args[3]
	client := cloudflare.NewClient(option.WithBaseURL(url), option.WithAPIToken(token), option.WithMaxRetries(0))
	stranger := cloudflare.NewClient(option.WithBaseURL(url), option.WithAPIToken("wrong"), option.WithMaxRetries(0))
	ctx := context.Background()

	verified := must(client.User.Tokens.Verify(ctx))
	expect("token is active", string(verified.Status), "active")
	listed := must(client.Zones.List(ctx, zones.ZoneListParams{Name: cloudflare.F(name)}))
	expect("zones of that name", len(listed.Result), 1)
	zone := must(client.Zones.Get(ctx, zones.ZoneGetParams{ZoneID: cloudflare.F(listed.Result[0].ID)}))
	expect("zone by id", zone.Name, name)
	_, err := stranger.Zones.List(ctx, zones.ZoneListParams{})
	refused("a wrong token", err, 9109)

	records(ctx, client, zone)
	healthChecks(ctx, client, zone)
	loadBalancers(ctx, client, zone)
	tunnels(ctx, client, zone)
	fmt.Println("the official Go client is content")
}

func expect(what string, got, wanted any) {
	if !reflect.DeepEqual(got, wanted) {
		end("%s: got %v, wanted %v", what, got, wanted)
	}
	fmt.Println("ok:", what)
}

func must[T any](answer T, err error) T {
	if err != nil {
		end("%v", err)
	}
	return answer
}

// refused is for calls that must fail, with this code of Cloudflare's and no other.
func refused(what string, err error, code int64) {
	var refusal *cloudflare.Error
	if !errors.As(err, &refusal) {
		end("%s: was not refused by the API: %v", what, err)
	}
	var codes []int64
	for _, one := range refusal.Errors {
		codes = append(codes, one.Code)
	}
	expect(what, codes, []int64{code})
}

func end(format string, words ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", words...)
	os.Exit(1)
}
