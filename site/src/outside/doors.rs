//! What a node outside asks of the doors of both sites: the active one's answers.

use diptych_wire::agent::Door;
use diptych_wire::tls::Credentials;
use http::StatusCode;

use crate::drill::CutSwitch;
use crate::peer::PeerClient;
use crate::peer::client::PeerError;

/// Why no door answered.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The active site refuses, for good.
    Refused(String),
    /// None can now.
    NotNow(String),
}

/// Asks one door after another until one answers, or refuses for good.
pub(super) async fn ask_doors<T>(
    doors: &[Door],
    own: &Credentials,
    ask: impl AsyncFn(PeerClient) -> Result<T, PeerError>,
) -> Result<T, NoAnswer> {
    let cluster = own.identity().cluster;
    let mut reasons = Vec::new();
    for door in doors {
        let address = std::slice::from_ref(&door.address);
        let reason = match PeerClient::at(address, &door.site, cluster, own, CutSwitch::default()) {
            Ok(client) => match ask(client).await {
                Ok(answer) => return Ok(answer),
                Err(PeerError::Refused { status, text }) if is_final(status) => {
                    return Err(NoAnswer::Refused(text));
                }
                Err(error) => diptych_wire::http::chain(&error),
            },
            Err(error) => error.to_string(),
        };
        reasons.push(format!("site {}: {reason}", door.site));
    }
    Err(NoAnswer::NotNow(reasons.join("; ")))
}

/// Asking again changes nothing.
fn is_final(status: StatusCode) -> bool {
    [StatusCode::GONE, StatusCode::FORBIDDEN, StatusCode::BAD_REQUEST].contains(&status)
}
