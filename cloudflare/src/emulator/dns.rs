//! Answers DNS from what has spread so far. A proxied name answers the edge's addresses, never the origin's.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SOA, TXT};
use hickory_server::proto::rr::{Name, RData, Record as DnsRecord, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::model::{Record, Zone};
use super::propagation::{self, View};
use super::{EmulatorError, Shared, serve};

/// Aliases followed in one answer.
const CHAIN: usize = 8;
/// An idle TCP client is dropped after this.
const TCP_LIMIT: Duration = Duration::from_secs(5);
const TCP_BUFFER: usize = 32;
/// SOA's last number: how long "there is no such name" may be kept.
const NEGATIVE_SECONDS: u32 = 60;
/// Seconds of a proxied name.
const EDGE_SECONDS: u32 = 300;
/// Seconds of SOA and NS.
const ZONE_SECONDS: u32 = 3600;

/// Binds UDP and TCP to one port, and answers until stopped.
pub(super) async fn start(
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> Result<SocketAddr, EmulatorError> {
    let (udp, tcp) = bind_both(address).await?;
    let bound = super::local_address("DNS", address, &tcp)?;
    let mut server = Server::new(Answerer { shared });
    server.register_socket(udp);
    server.register_listener(tcp, TCP_LIMIT, TCP_BUFFER);
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            ended = server.block_until_done() => tracing::error!(?ended, "the DNS server ended"),
        }
    });
    Ok(bound)
}

/// With port 0 the port that TCP got may be taken for UDP: then another.
async fn bind_both(address: SocketAddr) -> Result<(UdpSocket, TcpListener), EmulatorError> {
    let mut tries = if address.port() == 0 { 20 } else { 1 };
    loop {
        tries -= 1;
        let tcp = serve::bind("DNS (TCP)", address).await?;
        let same = super::local_address("DNS", address, &tcp)?;
        match UdpSocket::bind(same).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(_) if tries > 0 => {}
            Err(source) => return Err(EmulatorError::Listen { what: "DNS (UDP)", address, source }),
        }
    }
}

struct Answerer {
    shared: Arc<Shared>,
}

/// What goes into a response.
#[derive(Debug, Default)]
struct Answer {
    code: Option<ResponseCode>,
    records: Vec<DnsRecord>,
    soa: Vec<DnsRecord>,
}

#[async_trait::async_trait]
impl RequestHandler for Answerer {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut respond: R,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        let nothing_sent = ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() });
        if self.shared.faults.with(|faults| faults.dns_down) {
            return nothing_sent;
        }
        let answer = match request.request_info() {
            Ok(info) if request.metadata.op_code == OpCode::Query => {
                self.answer(&Name::from(info.query.name()), info.query.query_type())
            }
            Ok(_) => Answer { code: Some(ResponseCode::NotImp), ..Answer::default() },
            Err(_) => Answer { code: Some(ResponseCode::FormErr), ..Answer::default() },
        };
        metadata.response_code = answer.code.unwrap_or(ResponseCode::NoError);
        metadata.authoritative = answer.code != Some(ResponseCode::Refused);
        let response = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            &answer.records,
            [],
            &answer.soa,
            [],
        );
        respond.send_response(response).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "a DNS answer was not sent");
            nothing_sent
        })
    }
}

impl Answerer {
    fn answer(&self, name: &Name, wanted: RecordType) -> Answer {
        let text = name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let database = self.shared.store.database();
        let Some(zone) = database.zone_of(&text) else {
            return Answer { code: Some(ResponseCode::Refused), ..Answer::default() };
        };
        let view = self.shared.propagation.view();
        let mut answer = Answer::default();
        let known = self.follow(&view, zone, &text, wanted, &mut answer.records);
        if answer.records.is_empty() {
            answer.soa.extend(soa(zone));
        }
        if !known {
            answer.code = Some(ResponseCode::NXDomain);
        }
        answer
    }

    /// Adds the records of a name, and those that its aliases lead to; false where the name does not exist.
    fn follow(
        &self,
        view: &View,
        zone: &Zone,
        name: &str,
        wanted: RecordType,
        into: &mut Vec<DnsRecord>,
    ) -> bool {
        let mut name = name.to_owned();
        for step in 0..CHAIN {
            if name == zone.name {
                into.extend(of_zone(zone, wanted));
            }
            let Some(entry) = view.lookup(&name) else {
                return step > 0 || name == zone.name || view.has_below(&name);
            };
            let of_addresses = matches!(wanted, RecordType::A | RecordType::AAAA);
            if entry.is_proxied() && of_addresses {
                into.extend(to_addresses(&name, &self.shared.edge_addresses, wanted, EDGE_SECONDS));
                return true;
            }
            if let Some(balanced) = entry.balanced.as_ref().filter(|_| of_addresses) {
                let addresses = propagation::addresses(&balanced.origins(&self.shared.verdicts));
                into.extend(to_addresses(&name, &addresses, wanted, balanced.ttl));
                return true;
            }
            // A proxied alias is not shown at all.
            let open = || entry.records.iter().filter(|record| !record.proxied);
            into.extend(
                open().filter(|record| is_wanted(record, wanted)).filter_map(|record| to_dns(&name, record)),
            );
            match open().find(|record| record.kind == "CNAME") {
                Some(alias) if wanted != RecordType::CNAME => {
                    into.extend(to_dns(&name, alias));
                    name.clone_from(&alias.content);
                }
                _ => return true,
            }
        }
        true
    }
}

/// Those of the type that was asked for.
fn to_addresses(name: &str, addresses: &[IpAddr], wanted: RecordType, seconds: u32) -> Vec<DnsRecord> {
    let Some(name) = parse_name(name) else { return Vec::new() };
    let data = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(v4) if wanted == RecordType::A => Some(RData::A(A(*v4))),
        IpAddr::V6(v6) if wanted == RecordType::AAAA => Some(RData::AAAA(AAAA(*v6))),
        _ => None,
    });
    data.map(|data| DnsRecord::from_rdata(name.clone(), seconds, data)).collect()
}

fn is_wanted(record: &Record, wanted: RecordType) -> bool {
    wanted == RecordType::ANY || RecordType::from_str(&record.kind).is_ok_and(|kind| kind == wanted)
}

fn parse_name(name: &str) -> Option<Name> {
    Name::from_ascii(format!("{name}.")).ok()
}

/// SOA and NS of the zone itself.
fn of_zone(zone: &Zone, wanted: RecordType) -> Vec<DnsRecord> {
    match wanted {
        RecordType::SOA => soa(zone).into_iter().collect(),
        RecordType::NS => {
            let Some(name) = parse_name(&zone.name) else { return Vec::new() };
            let servers = zone.name_servers();
            let data = servers.iter().filter_map(|server| Some(RData::NS(NS(parse_name(server)?))));
            data.map(|data| DnsRecord::from_rdata(name.clone(), ZONE_SECONDS, data)).collect()
        }
        _ => Vec::new(),
    }
}

fn soa(zone: &Zone) -> Option<DnsRecord> {
    let [primary, _] = zone.name_servers();
    let mailbox = parse_name(&format!("dns.{}", zone.name))?;
    let data =
        SOA::new(parse_name(&primary)?, mailbox, zone.serial, 10_000, 2_400, 604_800, NEGATIVE_SECONDS);
    Some(DnsRecord::from_rdata(parse_name(&zone.name)?, ZONE_SECONDS, RData::SOA(data)))
}

fn to_dns(name: &str, record: &Record) -> Option<DnsRecord> {
    let data = match record.kind.as_str() {
        "A" => RData::A(A(record.content.parse().ok()?)),
        "AAAA" => RData::AAAA(AAAA(record.content.parse().ok()?)),
        "CNAME" => RData::CNAME(CNAME(parse_name(&record.content)?)),
        "NS" => RData::NS(NS(parse_name(&record.content)?)),
        "MX" => RData::MX(MX::new(record.priority.unwrap_or(0), parse_name(&record.content)?)),
        "TXT" => RData::TXT(TXT::new(text_chunks(&record.content))),
        _ => return None,
    };
    Some(DnsRecord::from_rdata(parse_name(name)?, record.seconds(), data))
}

/// Content of a TXT record: quoted strings as they stand, or bare text cut into strings of 255 bytes.
fn text_chunks(content: &str) -> Vec<String> {
    let quoted = content.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    if let Some(inner) = quoted {
        return inner.split("\" \"").map(|chunk| chunk.replace("\\\"", "\"")).collect();
    }
    let mut chunks = vec![String::new()];
    for letter in content.chars() {
        if chunks.last().is_some_and(|chunk| chunk.len() + letter.len_utf8() > 255) {
            chunks.push(String::new());
        }
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(letter);
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_unquoted_or_cut() {
        assert_eq!(text_chunks("\"a b\" \"c\""), ["a b", "c"]);
        assert_eq!(text_chunks(&"x".repeat(300)).iter().map(String::len).collect::<Vec<_>>(), [255, 45]);
    }
}
