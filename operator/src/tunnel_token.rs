//! The token for the connectors of the site's tunnel: the loops of this process leave it in the operator's folder, and cloudflared finds it in a
//! Secret.

use std::path::Path;
use std::time::Duration;

use crate::cluster;
use crate::config::Paths;
use crate::error::OperatorError;
use crate::options::OperatorOptions;
use crate::secrets;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Keeps the Secret as the loops of this process last said. Never ends.
pub(crate) async fn keep(options: &OperatorOptions) {
    let Some(path) = Paths::of_operator(&options.folder, &options.mirror).tunnel_token else {
        return std::future::pending().await;
    };
    // One that an earlier run of this pod left may be old; the keeper reads it anew.
    if std::fs::remove_file(&path).is_ok() {
        tracing::debug!("the token of an earlier run was dropped");
    }
    let mut kept = String::new();
    loop {
        if let Some(token) = news(&path, &kept) {
            match put(options, &token).await {
                Ok(()) => kept = token,
                Err(error) => {
                    tracing::warn!(error = error.chain(), "the tunnel's token is not in its Secret");
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn news(path: &Path, kept: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().filter(|token| token != kept)
}

async fn put(options: &OperatorOptions, token: &str) -> Result<(), OperatorError> {
    let Some((_, names)) = cluster::own_cluster(options).await? else { return Ok(()) };
    let secret = secrets::owned(&names, &names.child("tunnel"), "tunnel", &[("token", token)])?;
    secret.apply(&options.client).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_token_is_news() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tunnel.token");
        assert_eq!(news(&path, ""), None, "there is none yet");
        std::fs::write(&path, "one").expect("written");
        assert_eq!(news(&path, "").as_deref(), Some("one"));
        assert_eq!(news(&path, "one"), None);
        assert_eq!(news(&path, "before the fence").as_deref(), Some("one"));
    }
}
