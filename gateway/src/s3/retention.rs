//! Retention, as Object Lock spells it: of its modes COMPLIANCE, which nobody can lift, in any bucket.

use diptych_core::retention::RetainUntil;
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "an operation takes and gives several of its generated types")
)]
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::auth::namespace;
use super::convert;
use super::objects::named;
use super::operations::S3Front;
use crate::error::GatewayError;
use crate::objects::{ObjectInfo, Target};

impl S3Front {
    pub(super) async fn get_object_retention(
        &self,
        request: S3Request<GetObjectRetentionInput>,
    ) -> S3Result<S3Response<GetObjectRetentionOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let version = named(input.version_id.as_deref())?;
        let target = Target { bucket: &input.bucket, key: &input.key, version: version.as_ref() };
        let info = self.objects.head(&namespace, target).await?;
        let until = info.retained_until.ok_or(GatewayError::NoRetention(info.key))?;
        let retention = ObjectLockRetention {
            mode: Some(ObjectLockRetentionMode::from_static(ObjectLockRetentionMode::COMPLIANCE)),
            retain_until_date: Some(convert::timestamp(until.0)),
        };
        Ok(S3Response::new(GetObjectRetentionOutput { retention: Some(retention) }))
    }

    pub(super) async fn put_object_retention(
        &self,
        request: S3Request<PutObjectRetentionInput>,
    ) -> S3Result<S3Response<PutObjectRetentionOutput>> {
        let namespace = namespace(&request)?;
        let input = request.input;
        let version = named(input.version_id.as_deref())?;
        let target = Target { bucket: &input.bucket, key: &input.key, version: version.as_ref() };
        let ObjectLockRetention { mode, retain_until_date } = input.retention.unwrap_or_default();
        let until = wanted(mode.as_ref().map(ObjectLockRetentionMode::as_str), retain_until_date)?;
        let until = until.ok_or_else(|| {
            let message =
                "Retention needs Mode and RetainUntilDate: a retention may be lengthened, and never lifted";
            S3Error::with_message(S3ErrorCode::InvalidRequest, message)
        })?;
        self.objects.retain(&namespace, target, until).await?;
        Ok(S3Response::new(PutObjectRetentionOutput::default()))
    }
}

/// What a write asks for: the headers of Object Lock.
pub(super) fn of_write(
    mode: Option<&ObjectLockMode>,
    until: Option<Timestamp>,
    hold: Option<ObjectLockLegalHoldStatus>,
) -> S3Result<Option<RetainUntil>> {
    if hold.is_some_and(|hold| hold.as_str() == ObjectLockLegalHoldStatus::ON) {
        let message =
            "legal holds are not supported: nothing was stored; retain the object until a time instead";
        return Err(S3Error::with_message(S3ErrorCode::NotImplemented, message));
    }
    wanted(mode.map(ObjectLockMode::as_str), until)
}

fn wanted(mode: Option<&str>, until: Option<Timestamp>) -> S3Result<Option<RetainUntil>> {
    match (mode, until) {
        (None, None) => Ok(None),
        (Some(ObjectLockMode::COMPLIANCE), Some(until)) => {
            Ok(Some(RetainUntil(convert::milliseconds(until))))
        }
        (Some(_), Some(_)) => {
            let message = "of the modes of Object Lock there is COMPLIANCE only; nothing was done";
            Err(S3Error::with_message(S3ErrorCode::NotImplemented, message))
        }
        (Some(_), None) | (None, Some(_)) => {
            let message = "x-amz-object-lock-mode and x-amz-object-lock-retain-until-date need each other";
            Err(S3Error::with_message(S3ErrorCode::InvalidArgument, message))
        }
    }
}

/// What an answer says of an object.
pub(super) fn of_object(info: &ObjectInfo) -> (Option<ObjectLockMode>, Option<Timestamp>) {
    let said = |until: RetainUntil| {
        (ObjectLockMode::from_static(ObjectLockMode::COMPLIANCE), convert::timestamp(until.0))
    };
    info.retained_until.map(said).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_object_lock_can_not_promise_here_is_refused_and_never_left_out() {
        let (compliance, governance) =
            (ObjectLockMode::from_static("COMPLIANCE"), ObjectLockMode::from_static("GOVERNANCE"));
        let date = || Some(convert::timestamp(1_790_000_000_123));
        let on = Some(ObjectLockLegalHoldStatus::from_static(ObjectLockLegalHoldStatus::ON));
        let code = |refused: S3Result<Option<RetainUntil>>| {
            refused.map_err(|error| error.code().as_str().to_owned())
        };
        assert_eq!(code(of_write(None, None, None)), Ok(None));
        assert_eq!(code(of_write(Some(&compliance), date(), None)), Ok(Some(RetainUntil(1_790_000_000_123))));
        assert_eq!(code(of_write(Some(&governance), date(), None)), Err("NotImplemented".to_owned()));
        assert_eq!(code(of_write(Some(&compliance), None, None)), Err("InvalidArgument".to_owned()));
        assert_eq!(code(of_write(None, date(), None)), Err("InvalidArgument".to_owned()));
        assert_eq!(code(of_write(None, None, on)), Err("NotImplemented".to_owned()));
    }
}
