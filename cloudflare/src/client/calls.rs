//! The calls, one method each.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::types::Envelope;
use super::{
    Batch, BatchAnswer, Call, Client, DnsRecord, Error, HealthCheck, HealthCheckId, NewHealthCheck,
    NewRecord, PatchRecord, Permission, RecordFilter, RecordId, TokenStatus, Zone, ZoneId,
};

/// No body.
pub(super) const EMPTY: Option<&()> = None;
/// Cloudflare's default for records; 5,000 is what it still answers in time.
const RECORDS_A_PAGE: usize = 1000;
const CHECKS_A_PAGE: usize = 100;

pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl Client {
    pub(super) async fn get<T: DeserializeOwned>(&self, call: Call, path: &str) -> Result<T, Error> {
        Ok(self.send(call, Method::GET, path, EMPTY).await?.result)
    }

    /// All pages of a listing. `path` ends with a query.
    pub(super) async fn pages<T: DeserializeOwned>(
        &self,
        call: Call,
        path: &str,
        page_size: usize,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        for page in 1.. {
            let path = format!("{path}&page={page}&per_page={page_size}");
            let answer: Envelope<Vec<T>> = self.send(call, Method::GET, &path, EMPTY).await?;
            let got = answer.result.len();
            all.extend(answer.result);
            let total = answer.result_info.and_then(|info| info.total_count).unwrap_or(u64::MAX);
            if got < page_size || all.len() as u64 >= total {
                break;
            }
        }
        Ok(all)
    }

    /// Whether the token works, whatever it may do.
    pub async fn verify_token(&self) -> Result<TokenStatus, Error> {
        self.get(Call { name: "verify the token", permission: Permission::None }, "/user/tokens/verify").await
    }

    /// The zone of this name; none if the token can't see one.
    pub async fn zone_by_name(&self, name: &str) -> Result<Option<Zone>, Error> {
        let call = Call { name: "find the zone", permission: Permission::ZoneRead };
        let zones: Vec<Zone> = self.get(call, &format!("/zones?name={}", escape(name))).await?;
        Ok(zones.into_iter().find(|zone| zone.name.eq_ignore_ascii_case(name)))
    }

    /// Records of a zone; all pages. What the API did not filter as asked is dropped here.
    pub async fn records(&self, zone: &ZoneId, filter: &RecordFilter) -> Result<Vec<DnsRecord>, Error> {
        let call = Call { name: "list records", permission: Permission::DnsRead };
        let mut path = format!("/zones/{zone}/dns_records?match=all");
        if let Some(name) = &filter.name {
            path = format!("{path}&name={}", escape(name));
        }
        if let Some(kind) = &filter.kind {
            path = format!("{path}&type={kind}");
        }
        let mut records: Vec<DnsRecord> = self.pages(call, &path, RECORDS_A_PAGE).await?;
        records.retain(|record| {
            filter.name.as_ref().is_none_or(|name| record.name.eq_ignore_ascii_case(name))
                && filter.kind.as_ref().is_none_or(|kind| record.kind == *kind)
        });
        Ok(records)
    }

    /// Creates a record.
    pub async fn create_record(&self, zone: &ZoneId, record: &NewRecord) -> Result<DnsRecord, Error> {
        let call = Call { name: "create a record", permission: Permission::DnsEdit };
        Ok(self.send(call, Method::POST, &format!("/zones/{zone}/dns_records"), Some(record)).await?.result)
    }

    /// Changes some fields of a record. Last writer wins: for address records only, never for a witness.
    pub async fn patch_record(&self, zone: &ZoneId, patch: &PatchRecord) -> Result<DnsRecord, Error> {
        let call = Call { name: "change a record", permission: Permission::DnsEdit };
        let path = format!("/zones/{zone}/dns_records/{}", patch.id);
        Ok(self.send(call, Method::PATCH, &path, Some(patch)).await?.result)
    }

    /// Deletes a record. One that is gone already is an error ([`Error::is_missing`]).
    pub async fn delete_record(&self, zone: &ZoneId, id: &RecordId) -> Result<(), Error> {
        let call = Call { name: "delete a record", permission: Permission::DnsEdit };
        let path = format!("/zones/{zone}/dns_records/{id}");
        self.send::<IgnoredAny>(call, Method::DELETE, &path, EMPTY).await.map(drop)
    }

    /// Applies all changes, or none.
    pub async fn batch(&self, zone: &ZoneId, batch: &Batch) -> Result<BatchAnswer, Error> {
        let call = Call { name: "change records together", permission: Permission::DnsEdit };
        Ok(self
            .send(call, Method::POST, &format!("/zones/{zone}/dns_records/batch"), Some(batch))
            .await?
            .result)
    }

    /// Creates a health check.
    pub async fn create_health_check(
        &self,
        zone: &ZoneId,
        check: &NewHealthCheck,
    ) -> Result<HealthCheck, Error> {
        let call = Call { name: "create a health check", permission: Permission::HealthChecksEdit };
        Ok(self.send(call, Method::POST, &format!("/zones/{zone}/healthchecks"), Some(check)).await?.result)
    }

    /// All health checks of a zone.
    pub async fn health_checks(&self, zone: &ZoneId) -> Result<Vec<HealthCheck>, Error> {
        let call = Call { name: "list health checks", permission: Permission::HealthChecksRead };
        self.pages(call, &format!("/zones/{zone}/healthchecks?direction=asc"), CHECKS_A_PAGE).await
    }

    /// One health check with its verdict.
    pub async fn health_check(&self, zone: &ZoneId, id: &HealthCheckId) -> Result<HealthCheck, Error> {
        let call = Call { name: "read a health check", permission: Permission::HealthChecksRead };
        self.get(call, &format!("/zones/{zone}/healthchecks/{id}")).await
    }

    /// Deletes a health check.
    pub async fn delete_health_check(&self, zone: &ZoneId, id: &HealthCheckId) -> Result<(), Error> {
        let call = Call { name: "delete a health check", permission: Permission::HealthChecksEdit };
        let path = format!("/zones/{zone}/healthchecks/{id}");
        self.send::<IgnoredAny>(call, Method::DELETE, &path, EMPTY).await.map(drop)
    }
}
