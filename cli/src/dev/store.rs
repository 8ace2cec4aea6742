//! A bucket, the witness's or that of outside nodes' devices, in a word of the command line.

use std::str::FromStr;

use diptych_site::witness::ObjectStoreConfig;
use reqwest::Url;

/// `http[s]://ACCESSKEY:SECRET@HOST[:PORT]/BUCKET/KEY`
#[derive(Debug, Clone)]
pub struct StoreUrl(pub ObjectStoreConfig);

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = "http[s]://ACCESSKEY:SECRET@HOST[:PORT]/BUCKET/KEY is needed";
        let mut url: Url = text.parse().map_err(|error| format!("{shape}: {error}"))?;
        let (access_key, secret_key) = (url.username().to_owned(), url.password().map(str::to_owned));
        let (bucket, key) = url.path().trim_matches('/').split_once('/').ok_or(shape)?;
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let secret_key = secret_key.filter(|_| !access_key.is_empty()).ok_or(shape)?;
        url.set_path("");
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| shape)?;
        Ok(Self(ObjectStoreConfig {
            endpoint: url.to_string(),
            bucket,
            key,
            region: "us-east-1".to_owned(),
            access_key,
            secret_key,
            authority: None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_read_from_its_url_and_its_secret_does_not_print() {
        let store: StoreUrl = "http://key:s3cret@127.0.0.1:9000/witness/a/lease".parse().expect("it reads");
        let config = &store.0;
        assert_eq!(config.endpoint, "http://127.0.0.1:9000/");
        assert_eq!((config.bucket.as_str(), config.key.as_str()), ("witness", "a/lease"));
        assert_eq!((config.access_key.as_str(), config.secret_key.as_str()), ("key", "s3cret"));
        assert!(!format!("{store:?}").contains("s3cret"), "{store:?}");
    }

    #[test]
    fn what_is_missing_is_said() {
        for text in ["http://127.0.0.1/witness/lease", "http://key:s@127.0.0.1/witness", "127.0.0.1"] {
            let error = text.parse::<StoreUrl>().expect_err("something is missing");
            assert!(error.contains("BUCKET/KEY is needed"), "{error}");
        }
    }
}
