//! Who asks: the access key's record in the catalog.

use std::sync::Arc;

use diptych_core::access::open_secret;
use diptych_core::keys;
use diptych_core::records::AccessKey;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result};

use crate::context::Context;
use crate::error::{GatewayError, Result};
use crate::recent::recent;

/// Secrets for signatures.
pub(super) struct KeySecrets {
    pub context: Arc<Context>,
}

#[async_trait::async_trait]
impl S3Auth for KeySecrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let record = find_key(&self.context, access_key).await?;
        let Some(record) = record else {
            tracing::info!(access_key, "denied: there is no such access key");
            let message = "the access key that the request is signed with does not exist";
            return Err(S3Error::with_message(S3ErrorCode::InvalidAccessKeyId, message));
        };
        let secret = open_secret(&self.context.keyring(), access_key, &record);
        let secret = secret.map_err(|error| GatewayError::NotReady(error.to_string()))?;
        Ok(SecretKey::from(secret.as_str()))
    }
}

/// Who signed a request, for the operation.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub namespace: String,
}

/// What an access key may do.
pub(super) struct KeyAccess {
    pub context: Arc<Context>,
}

#[async_trait::async_trait]
impl S3Access for KeyAccess {
    async fn check(&self, request: &mut S3AccessContext<'_>) -> S3Result<()> {
        let denied = |message: &'static str| {
            self.context.metrics().refusals.with_label_values(&["s3", "AccessDenied"]).inc();
            S3Error::with_message(S3ErrorCode::AccessDenied, message)
        };
        let Some(credentials) = request.credentials() else {
            return Err(denied("requests must be signed"));
        };
        let id = credentials.access_key.clone();
        let record = find_key(&self.context, &id).await?;
        let record = record.ok_or_else(|| denied("the access key was deleted"))?;
        let operation = request.s3_op().name();
        let reads = ["Get", "Head", "List"].iter().any(|prefix| operation.starts_with(prefix));
        if record.read_only && !reads {
            tracing::info!(access_key = id, operation, "denied: the access key is for reads only");
            return Err(denied("the access key is for reads only"));
        }
        request.extensions_mut().insert(Caller { namespace: record.namespace });
        Ok(())
    }
}

/// The caller's namespace.
pub(super) fn namespace<T>(request: &S3Request<T>) -> S3Result<String> {
    let caller = request.extensions.get::<Caller>();
    let unsigned = || S3Error::with_message(S3ErrorCode::AccessDenied, "requests must be signed");
    caller.map(|caller| caller.namespace.clone()).ok_or_else(unsigned)
}

/// The record of an access key, if there is one.
async fn find_key(context: &Context, id: &str) -> Result<Option<AccessKey>> {
    recent(context.catalog().as_ref(), &keys::access_key(id)).await
}
