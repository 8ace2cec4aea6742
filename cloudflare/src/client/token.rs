//! The API token, which is never printed and is wiped when dropped.

use std::fmt;
use std::str::FromStr;

use http::HeaderValue;
use thiserror::Error;
use zeroize::Zeroizing;

/// A token of Cloudflare's API. `Debug` shows no part of it.
#[derive(Clone)]
pub struct ApiToken(Zeroizing<String>);

/// The text can't be a token. The text itself is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the Cloudflare token is {0}; paste the token alone, as the dashboard shows it once")]
pub struct InvalidToken(&'static str);

impl ApiToken {
    /// As it is sent.
    pub(super) fn header(&self) -> HeaderValue {
        let text = Zeroizing::new(format!("Bearer {}", self.0.as_str()));
        let mut value = HeaderValue::from_str(&text).expect("from_str() let only visible ASCII through");
        value.set_sensitive(true);
        value
    }
}

impl FromStr for ApiToken {
    type Err = InvalidToken;

    /// White space around it is dropped: Secrets often end with a newline.
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidToken("empty"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidToken("broken: it holds white space or characters that are not ASCII"));
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_at_the_end_is_dropped_and_one_inside_is_refused() {
        let token: ApiToken = "secret\n".parse().expect("fine");
        assert_eq!(token.header().to_str().expect("ASCII"), "Bearer secret");
        assert!("sec\nret".parse::<ApiToken>().is_err());
        assert!(" \n".parse::<ApiToken>().is_err());
    }

    #[test]
    fn neither_the_token_nor_its_header_prints_the_secret() {
        let token: ApiToken = "secret".parse().expect("fine");
        assert!(!format!("{token:?} {:?}", token.header()).contains("secret"));
    }
}
