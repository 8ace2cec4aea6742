//! What may be done to the records of a zone, and what is refused with which code. Pure, but for new ids and the time.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::failure::Failure;
use super::model::{Record, Zone, is_proxiable, is_within, now};
use super::options::Plan;

/// Null clears, silence keeps.
type Sent = Option<Option<String>>;

/// Fields of a record as a client sends them. What clients may not write (`id` in a body, dates, …) is ignored.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Input {
    pub(super) id: Option<String>,
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    content: Option<String>,
    data: Option<Value>,
    priority: Option<u16>,
    proxied: Option<bool>,
    ttl: Option<u32>,
    settings: Option<Value>,
    /// `Some(None)` where the client sent null.
    #[serde(default, deserialize_with = "sent")]
    comment: Sent,
    tags: Option<Vec<String>>,
}

fn sent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sent, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Body of a batch.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct BatchInput {
    deletes: Option<Vec<Input>>,
    patches: Option<Vec<Input>>,
    puts: Option<Vec<Input>>,
    posts: Option<Vec<Input>>,
}

const TYPES: [&str; 21] = [
    "A",
    "AAAA",
    "CAA",
    "CERT",
    "CNAME",
    "DNSKEY",
    "DS",
    "HTTPS",
    "LOC",
    "MX",
    "NAPTR",
    "NS",
    "OPENPGPKEY",
    "PTR",
    "SMIMEA",
    "SRV",
    "SSHFP",
    "SVCB",
    "TLSA",
    "TXT",
    "URI",
];

/// Deletes, patches, puts, posts, in this order. The first failure is returned, and the caller then drops the zone.
pub(super) fn batch(zone: &mut Zone, input: BatchInput, plan: Plan) -> Result<Value, Failure> {
    // The batch itself was found: what is missing in it is no 404.
    apply_batch(zone, input, plan)
        .map_err(|failure| Failure { status: http::StatusCode::BAD_REQUEST, ..failure })
}

fn apply_batch(zone: &mut Zone, input: BatchInput, plan: Plan) -> Result<Value, Failure> {
    let BatchInput { deletes, patches, puts, posts } = input;
    let lists = [deletes, patches, puts, posts].map(Option::unwrap_or_default);
    let actions: usize = lists.iter().map(Vec::len).sum();
    if actions > plan.record_limit() {
        let message = format!("The batch has {actions} actions; at most {} are allowed", plan.record_limit());
        return Err(Failure::bad_request(81045, message));
    }
    let [deletes, patches, puts, posts] = lists;
    let id = |input: &Input| input.id.clone().unwrap_or_default();
    let mut done = json!({});
    done["deletes"] = each(deletes, |input| delete(zone, &id(&input)))?;
    done["patches"] = each(patches, |input| patch(zone, &id(&input), input))?;
    done["puts"] = each(puts, |input| put(zone, &id(&input), input))?;
    done["posts"] = each(posts, |input| post(zone, input, plan))?;
    Ok(done)
}

fn each(list: Vec<Input>, mut act: impl FnMut(Input) -> Result<Record, Failure>) -> Result<Value, Failure> {
    let done: Result<Vec<Value>, Failure> =
        list.into_iter().map(|input| act(input).map(|record| record.to_api())).collect();
    done.map(Value::from)
}

pub(super) fn delete(zone: &mut Zone, id: &str) -> Result<Record, Failure> {
    let at = position(zone, id)?;
    zone.serial += 1;
    Ok(zone.records.remove(at))
}

pub(super) fn post(zone: &mut Zone, input: Input, plan: Plan) -> Result<Record, Failure> {
    if zone.records.len() >= plan.record_limit() {
        return Err(Failure::bad_request(81045, "The record quota has been exceeded."));
    }
    let record = merged(zone, Record::blank(), input)?;
    zone.records.push(record.clone());
    zone.serial += 1;
    Ok(record)
}

pub(super) fn patch(zone: &mut Zone, id: &str, input: Input) -> Result<Record, Failure> {
    let at = position(zone, id)?;
    let record = merged(zone, zone.records[at].clone(), input)?;
    Ok(replace(zone, at, record))
}

pub(super) fn put(zone: &mut Zone, id: &str, input: Input) -> Result<Record, Failure> {
    let at = position(zone, id)?;
    let old = &zone.records[at];
    let blank = Record {
        id: old.id.clone(),
        created_on: old.created_on.clone(),
        comment_modified_on: old.comment_modified_on.clone(),
        tags_modified_on: old.tags_modified_on.clone(),
        ..Record::blank()
    };
    let record = merged(zone, blank, input)?;
    Ok(replace(zone, at, record))
}

fn replace(zone: &mut Zone, at: usize, mut record: Record) -> Record {
    record.modified_on = now();
    zone.records[at] = record.clone();
    zone.serial += 1;
    record
}

fn position(zone: &Zone, id: &str) -> Result<usize, Failure> {
    let found = zone.records.iter().position(|record| record.id == id);
    found.ok_or_else(|| Failure::new(http::StatusCode::NOT_FOUND, 81044, "Record does not exist."))
}

/// The record with the sent fields, checked by itself and against the rest of the zone.
fn merged(zone: &Zone, mut record: Record, input: Input) -> Result<Record, Failure> {
    if let Some(name) = input.name {
        record.name = whole_name(&name, &zone.name);
    }
    if let Some(kind) = input.kind {
        record.kind = kind.to_ascii_uppercase();
    }
    record.content = input.content.unwrap_or(record.content);
    record.priority = input.priority.or(record.priority);
    record.proxied = input.proxied.unwrap_or(record.proxied);
    record.ttl = input.ttl.unwrap_or(record.ttl);
    record.settings = input.settings.unwrap_or(record.settings);
    if let Some(data) = input.data.filter(|data| !data.is_null()) {
        record.content = content_of(&record.kind, &data);
        record.data = Some(data);
    }
    if let Some(comment) = input.comment {
        record.comment = comment.filter(|text| !text.is_empty());
        record.comment_modified_on = record.comment.is_some().then(now);
    }
    if let Some(tags) = input.tags {
        record.tags_modified_on = (!tags.is_empty()).then(now);
        record.tags = tags;
    }
    normalise(&mut record);
    check_alone(&record, &zone.name)?;
    check_beside(&record, zone)?;
    Ok(record)
}

fn whole_name(name: &str, zone: &str) -> String {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    match name.as_str() {
        "" | "@" => zone.to_owned(),
        _ if is_within(&name, zone) => name,
        _ => format!("{name}.{zone}"),
    }
}

/// Content of the types that come as `data`.
fn content_of(kind: &str, data: &Value) -> String {
    let field = |name: &str| match &data[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match kind {
        "CAA" => format!("{} {} \"{}\"", field("flags"), field("tag"), field("value")),
        "SRV" => format!("{} {} {}", field("weight"), field("port"), field("target")),
        _ => {
            data.as_object().into_iter().flatten().map(|(name, _)| field(name)).collect::<Vec<_>>().join(" ")
        }
    }
}

fn normalise(record: &mut Record) {
    if record.proxied {
        record.ttl = 1;
    }
    match record.kind.as_str() {
        "AAAA" => {
            if let Ok(address) = record.content.parse::<Ipv6Addr>() {
                record.content = address.to_string();
            }
        }
        "CNAME" | "NS" | "MX" | "PTR" => {
            record.content = record.content.trim_end_matches('.').to_ascii_lowercase();
        }
        _ => {}
    }
}

fn check_alone(record: &Record, zone: &str) -> Result<(), Failure> {
    let refuse = |code, message: &str| Err(Failure::bad_request(code, message));
    if record.kind.is_empty() || !TYPES.contains(&record.kind.as_str()) {
        return refuse(9004, "A valid DNS record type is required.");
    }
    if !is_within(&record.name, zone) || !is_name(&record.name) {
        return refuse(9000, "DNS name is invalid.");
    }
    match record.kind.as_str() {
        "A" if record.content.parse::<Ipv4Addr>().is_err() => {
            return refuse(9005, "Content for A record must be a valid IPv4 address.");
        }
        "AAAA" if record.content.parse::<Ipv6Addr>().is_err() => {
            return refuse(9006, "Content for AAAA record must be a valid IPv6 address.");
        }
        "CNAME" if !is_name(&record.content) || record.content == record.name => {
            return refuse(9007, "Content for CNAME record is invalid.");
        }
        _ if record.content.is_empty() => return refuse(9009, "DNS record content is required."),
        _ => {}
    }
    if record.ttl != 1 && !(60..=86400).contains(&record.ttl) {
        return refuse(9021, "Invalid TTL. Must be between 60 and 86,400 seconds, or 1 for Automatic.");
    }
    if record.proxied && !is_proxiable(&record.kind) {
        return refuse(9041, "This DNS record cannot be proxied.");
    }
    if record.comment.as_deref().is_some_and(|text| text.contains('\n') || text.chars().count() > 500) {
        return refuse(9306, "Comment is invalid: at most 500 characters on one line.");
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let label =
        |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic());
    (1..=253).contains(&name.len()) && name.split('.').all(label)
}

/// The rules between records of one name.
fn check_beside(record: &Record, zone: &Zone) -> Result<(), Failure> {
    let others = || zone.records.iter().filter(|other| other.name == record.name && other.id != record.id);
    let is_address = |kind: &str| matches!(kind, "A" | "AAAA");
    if record.kind == "CNAME" && others().any(|other| is_proxiable(&other.kind)) {
        return Err(Failure::bad_request(
            81053,
            "An A, AAAA, or CNAME record with that host already exists. For more details, refer to \
             <https://developers.cloudflare.com/dns/manage-dns-records/troubleshooting/records-with-same-name/>.",
        ));
    }
    if is_address(&record.kind) && others().any(|other| other.kind == "CNAME") {
        return Err(Failure::bad_request(81054, "A CNAME record with that host already exists."));
    }
    let delegates = |kind: &str| kind == "NS";
    if record.name != zone.name && others().any(|other| delegates(&other.kind) != delegates(&record.kind)) {
        return Err(Failure::bad_request(81056, "NS records with that host already exist."));
    }
    let same = |other: &&Record| {
        other.kind == record.kind && other.content == record.content && other.priority == record.priority
    };
    // SRV takes exact duplicates.
    match others().find(same) {
        Some(other) if record.kind != "SRV" => {
            if (other.ttl, other.proxied) == (record.ttl, record.proxied) {
                Err(Failure::bad_request(81058, "An identical record already exists."))
            } else {
                Err(Failure::bad_request(81057, "The record already exists."))
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(value: Value) -> Input {
        serde_json::from_value(value).expect("a well-formed record")
    }

    fn code(result: Result<Record, Failure>) -> u32 {
        result.expect_err("must be refused").code
    }

    #[test]
    fn a_name_without_the_zone_is_completed_and_a_proxied_one_has_automatic_time() {
        let mut zone = Zone::new("example.com");
        let sent =
            json!({"name": "Files", "type": "A", "content": "192.0.2.1", "proxied": true, "ttl": 3600});
        let record = post(&mut zone, input(sent), Plan::Free).expect("fine");
        assert_eq!((record.name.as_str(), record.ttl), ("files.example.com", 1));
    }

    #[test]
    fn records_in_the_way_are_refused_with_their_codes() {
        let mut zone = Zone::new("example.com");
        let mut add = |name: &str, kind: &str, content: &str, ttl: u32| {
            let sent = json!({"name": name, "type": kind, "content": content, "ttl": ttl});
            post(&mut zone, input(sent), Plan::Free)
        };
        add("a", "A", "192.0.2.1", 1).expect("first");
        add("a", "A", "192.0.2.2", 1).expect("other content");
        add("c", "CNAME", "x.example.net", 1).expect("alone");
        assert_eq!(code(add("a", "A", "192.0.2.1", 1)), 81058);
        assert_eq!(code(add("a", "A", "192.0.2.1", 60)), 81057);
        assert_eq!(code(add("a", "CNAME", "x.example.net", 1)), 81053);
        assert_eq!(code(add("c", "CNAME", "y.example.net", 1)), 81053);
        assert_eq!(code(add("c", "A", "192.0.2.1", 1)), 81054);
        assert_eq!(code(add("x", "A", "300.0.2.1", 1)), 9005);
        assert_eq!(code(add("x", "A", "192.0.2.1", 5)), 9021);
        assert_eq!(code(delete(&mut zone, "nothing")), 81044);
    }

    #[test]
    fn null_clears_a_comment_and_silence_keeps_it() {
        let mut zone = Zone::new("example.com");
        let sent = json!({"name": "a", "type": "A", "content": "192.0.2.1", "comment": "mine"});
        let id = post(&mut zone, input(sent), Plan::Free).expect("fine").id;
        let kept = patch(&mut zone, &id, input(json!({"content": "192.0.2.2"}))).expect("fine");
        assert_eq!(kept.comment.as_deref(), Some("mine"));
        let cleared = patch(&mut zone, &id, input(json!({"comment": null}))).expect("fine");
        assert_eq!(cleared.comment, None);
    }
}
