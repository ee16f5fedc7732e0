//! GitLab, by its REST API (version 4).
//!
//! Owns paths, pages and words of that API. Sending, repeating and refusing are `http`'s. To use another call: a
//! method of [`Ci`], its path here, and its answer in the stand-in server of `tests/gitlab`.

mod http;
mod refusal;
mod writer;

use std::path::Path;

use async_trait::async_trait;
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;

use super::{Bridge, Ci, Cost, Fetched, Id, Job, Piece, Pipeline};
use crate::external::{Class, Error, Result};
use crate::settings::ci::Access;
use http::Http;

/// Most pages of one listing that are read: a listing that goes on for ever is not believed.
const PAGES: usize = 500;

/// A project of a GitLab.
#[derive(Debug)]
pub struct Gitlab {
    http: Http,
    project: String,
    place: String,
}

impl Gitlab {
    /// For that project, with that token.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(access: &Access) -> Result<Gitlab> {
        let base = format!("{}/api/v4/", access.url.value.trim_end_matches('/'));
        let base = Url::parse(&base).ok().filter(|url| url.has_host() && url.scheme().starts_with("http"));
        let Some(base) = base else {
            let error = Error::new("gitlab", "use", &access.url.value, Class::Rejected, "it is no URL");
            return Err(error.hint("`url` in `[gitlab]` of kmt.toml, or KMT_GITLAB_URL: https://HOST"));
        };
        let project = encoded(&access.project.value);
        let place = format!("{}/{}", access.url.value.trim_end_matches('/'), access.project.value);
        Ok(Gitlab { http: Http::new(base, access)?, project, place })
    }

    fn url(&self, rest: &str) -> Result<Url> {
        self.http.join(&format!("projects/{}/{rest}", self.project))
    }

    async fn one<T: DeserializeOwned>(
        &self,
        method: Method,
        operation: &'static str,
        rest: &str,
    ) -> Result<T> {
        let answer = self.http.json(method, self.url(rest)?, operation, rest).await?;
        http::parse(&answer.body, operation, rest)
    }

    /// All pages of a listing, by the `Link` header, else by the number of the next page.
    async fn all<T: DeserializeOwned>(&self, operation: &'static str, rest: &str) -> Result<Vec<T>> {
        let first = self.url(rest)?;
        let (mut url, mut found, mut seen) = (first.clone(), Vec::new(), Vec::new());
        loop {
            let answer = self.http.json(Method::GET, url.clone(), operation, rest).await?;
            found.append(&mut http::parse::<Vec<T>>(&answer.body, operation, rest)?);
            let next = match (answer.next_link(&url), answer.next_page()) {
                (Some(link), _) => link,
                (None, Some(page)) => with_page(&first, page),
                (None, None) => return Ok(found),
            };
            seen.push(url);
            let elsewhere = next.origin() != first.origin();
            if elsewhere || seen.contains(&next) || seen.len() >= PAGES {
                let why = format!("page {} leads to `{}`", seen.len(), next.path());
                return Err(Error::new("gitlab", operation, rest, Class::Unintelligible, why));
            }
            url = next;
        }
    }
}

fn with_page(first: &Url, page: u64) -> Url {
    let mut url = first.clone();
    let kept: Vec<(String, String)> =
        first.query_pairs().filter(|(key, _)| key != "page").map(|(k, v)| (k.into(), v.into())).collect();
    url.query_pairs_mut().clear().extend_pairs(kept).append_pair("page", &page.to_string());
    url
}

/// A word as one segment of a path.
fn encoded(word: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    word.bytes().fold(String::new(), |text, byte| {
        text + &if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    })
}

#[async_trait]
impl Ci for Gitlab {
    fn place(&self) -> String {
        self.place.clone()
    }

    async fn pipeline(&self, id: Id) -> Result<Pipeline> {
        self.one(Method::GET, "read", &format!("pipelines/{id}")).await
    }

    async fn newest(&self, branch: &str) -> Result<Option<Id>> {
        let rest = format!("pipelines?ref={}&per_page=1&order_by=id&sort=desc", encoded(branch));
        let found: Vec<Pipeline> = self.one(Method::GET, "list", &rest).await?;
        Ok(found.first().map(|pipeline| pipeline.id))
    }

    async fn jobs(&self, pipeline: Id) -> Result<Vec<Job>> {
        self.all("list", &format!("pipelines/{pipeline}/jobs?include_retried=true&per_page=100")).await
    }

    async fn bridges(&self, pipeline: Id) -> Result<Vec<Bridge>> {
        self.all("list", &format!("pipelines/{pipeline}/bridges?per_page=100")).await
    }

    async fn fetch(&self, job: Id, piece: &Piece, to: &Path, limit: u64) -> Result<Fetched> {
        let rest = match piece {
            Piece::File(path) => {
                let path: Vec<String> = path.split('/').map(encoded).collect();
                format!("jobs/{job}/artifacts/{}", path.join("/"))
            }
            Piece::Archive => format!("jobs/{job}/artifacts"),
            Piece::Trace => format!("jobs/{job}/trace"),
        };
        self.http.download(self.url(&rest)?, &rest, to, limit).await
    }

    async fn retry(&self, job: Id) -> Result<Job> {
        self.one(Method::POST, "retry", &format!("jobs/{job}/retry")).await
    }

    async fn cancel(&self, job: Id) -> Result<Job> {
        self.one(Method::POST, "cancel", &format!("jobs/{job}/cancel")).await
    }

    fn cost(&self) -> Cost {
        self.http.cost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_encoded() {
        assert_eq!(encoded("Group/sub project"), "Group%2Fsub%20project");
        assert_eq!(encoded("junit-x86_64.tar.gz"), "junit-x86_64.tar.gz");
        let url = with_page(&Url::parse("http://a/b?per_page=2&page=1").unwrap(), 7);
        assert_eq!(url.as_str(), "http://a/b?per_page=2&page=7");
    }
}
