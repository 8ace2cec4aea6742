"""Clients that nobody here wrote, against the emulator: Cloudflare's own SDK, and octoDNS plan and apply.

Usage: official_clients.py API_URL TOKEN ZONE
"""

import io
import json
import sys
import tempfile
from pathlib import Path

import cloudflare
from octodns.manager import Manager

OWNED = "diptych:test"


def expect(what, got, wanted):
    if got != wanted:
        raise SystemExit(f"{what}: got {got!r}, wanted {wanted!r}")
    print(f"ok: {what}")


def refused(what, code, call):
    try:
        call()
    except cloudflare.APIStatusError as error:
        codes = [entry["code"] for entry in error.response.json()["errors"]]
        expect(what, codes, [code])
    else:
        raise SystemExit(f"{what}: was not refused")


def sdk(url, token, zone_name):
    client = cloudflare.Cloudflare(api_token=token, base_url=url, max_retries=0, _strict_response_validation=True)
    expect("token is active", client.user.tokens.verify().status, "active")
    [zone] = list(client.zones.list(name=zone_name))
    expect("zone by id", client.zones.get(zone_id=zone.id).name, zone_name)

    records = client.dns.records
    made = records.create(zone_id=zone.id, name="sdk", type="A", content="192.0.2.1", ttl=1, proxied=True, comment=OWNED)
    expect("the name is completed", made.name, f"sdk.{zone_name}")
    expect("an id of 32 digits", len(made.id), 32)
    expect("dates are dates", made.created_on.year >= 2024, True)
    expect("a proxied record is proxiable", (made.proxied, made.proxiable, made.ttl), (True, True, 1))
    edited = records.edit(made.id, zone_id=zone.id, name="sdk", type="A", content="192.0.2.2", ttl=1)
    expect("an edit keeps the rest", (edited.content, edited.proxied, edited.comment), ("192.0.2.2", True, OWNED))
    replaced = records.update(made.id, zone_id=zone.id, name="sdk", type="A", content="192.0.2.3", ttl=300)
    expect("an update replaces all", (replaced.content, replaced.proxied, replaced.comment), ("192.0.2.3", False, None))
    named = list(records.list(zone_id=zone.id, name={"exact": f"sdk.{zone_name}"}))
    expect("listed by exact name", [record.id for record in named], [made.id])
    expect("got by id", records.get(made.id, zone_id=zone.id).content, "192.0.2.3")

    refused("an identical record", 81058, lambda: records.create(zone_id=zone.id, name="sdk", type="A", content="192.0.2.3", ttl=300))
    refused("an alias beside an address", 81053, lambda: records.create(zone_id=zone.id, name="sdk", type="CNAME", content="x.example.net", ttl=1))
    batch = records.batch(
        zone_id=zone.id,
        deletes=[{"id": made.id}],
        posts=[{"name": "sdk", "type": "CNAME", "content": "x.example.net", "ttl": 1}],
    )
    expect("a batch deletes, then posts", (batch.deletes[0].id, batch.posts[0].type), (made.id, "CNAME"))
    refused("a batch with an unknown id", 81044, lambda: records.batch(
        zone_id=zone.id,
        deletes=[{"id": "0" * 32}],
        posts=[{"name": "never", "type": "A", "content": "192.0.2.9", "ttl": 1}],
    ))
    expect("and it changed nothing", [record.type for record in records.list(zone_id=zone.id)], ["CNAME"])
    records.delete(batch.posts[0].id, zone_id=zone.id)
    refused("a deleted record is gone", 81044, lambda: records.delete(batch.posts[0].id, zone_id=zone.id))

    checks = client.healthchecks
    check = checks.create(zone_id=zone.id, name="east", address="127.0.0.1", type="TCP", tcp_config={"port": 1})
    expect("health checks are listed", [one.id for one in checks.list(zone_id=zone.id)], [check.id])
    checks.delete(check.id, zone_id=zone.id)
    expect("edge networks", len(client.ips.list().ipv4_cidrs) > 0, True)

    stranger = cloudflare.Cloudflare(api_token="wrong", base_url=url, max_retries=0)
    refused("a wrong token", 9109, lambda: stranger.zones.list(name=zone_name))


CONFIG = """
manager: {{plan_outputs: {{json: {{class: octodns.provider.plan.PlanJson}}}}}}
providers:
  config: {{class: octodns.provider.yaml.YamlProvider, directory: {folder}, default_ttl: 300, enforce_order: false}}
  cloudflare: {{class: octodns_cloudflare.CloudflareProvider, token: {token}, api_url: {url}}}
zones:
  {zone}.: {{sources: [config], targets: [cloudflare]}}
"""

FIRST = """
'': [{type: A, values: [192.0.2.1, 192.0.2.2]}, {type: MX, values: [{exchange: mail.example.net., preference: 10}]}]
www: {type: CNAME, value: example.net.}
text: {type: TXT, values: ["v=spf1 -all"]}
proxied: {type: A, value: 192.0.2.7, octodns: {cloudflare: {proxied: true, auto-ttl: true}}}
"""

SECOND = """
'': [{type: A, values: [192.0.2.2, 192.0.2.3]}, {type: MX, values: [{exchange: mail.example.net., preference: 10}]}]
www: {type: A, value: 192.0.2.4}
proxied: {type: A, value: 192.0.2.8, octodns: {cloudflare: {proxied: true, auto-ttl: true}}}
"""


def octodns(url, token, zone_name):
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(CONFIG.format(folder=folder, token=token, url=url, zone=zone_name))

        def apply():
            return Manager(str(config)).sync(dry_run=False, force=True)

        def planned():
            output = io.StringIO()
            Manager(str(config)).sync(dry_run=True, force=True, plan_output_fh=output)
            plans = json.loads(output.getvalue()).get("cloudflare", {})
            return sum(len(plan["changes"]) for plan in plans.values())

        # The second: two names change, an alias becomes an address (two changes), a text goes.
        for step, wanted, count in (("first", FIRST, 5), ("second", SECOND, 5)):
            Path(folder, f"{zone_name}.yaml").write_text(wanted)
            expect(f"octodns plans the {step} state", planned(), count)
            expect(f"octodns applies the {step} state", apply(), count)
            expect(f"the {step} state needs no more changes", planned(), 0)


if __name__ == "__main__":
    sdk(*sys.argv[1:])
    octodns(*sys.argv[1:])
    print("all official clients are content")
