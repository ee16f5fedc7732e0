//! Rented hosts: which to ask for, what a refusal means, how one becomes ready, and that none is left.
//!
//! Owns types and prices ([`kinds`]), the order of attempts ([`attempts`]), what refusals mean ([`refusal`]), tags and tokens
//! ([`tags`]), the script that makes a bare image ready ([`setup`]), launching ([`launch`]) and taking away ([`gone`]).
//! The first five are pure. Does not talk to a cloud (`external::cloud` does) and does not know what runs on the
//! hosts. To add a type with its price: a line in [`kinds`]; a refusal: a line in [`refusal`].

pub mod attempts;
pub mod gone;
pub mod kinds;
pub mod launch;
pub mod refusal;
pub mod setup;
pub mod tags;

use std::time::Duration;

/// How fast a cloud is asked, and how long a host may take. Each world carries its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two looks at a host that begins or ends.
    pub poll: Duration,
    /// From the order to a host that can be used: bare metal takes its time.
    pub boot: Duration,
    /// Until it is seen to end.
    pub end: Duration,
    /// Before what was throttled is asked again; twice as long each time.
    pub pause: Duration,
    /// How often it is asked at most.
    pub tries: u32,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            poll: Duration::from_secs(5),
            boot: Duration::from_mins(20),
            end: Duration::from_secs(60),
            pause: Duration::from_secs(2),
            tries: 6,
        }
    }
}

impl Pace {
    /// That of a world in which nothing takes time.
    pub fn quick() -> Pace {
        Pace {
            poll: Duration::from_millis(10),
            boot: Duration::from_secs(3),
            end: Duration::from_secs(1),
            pause: Duration::from_millis(5),
            tries: 4,
        }
    }
}
