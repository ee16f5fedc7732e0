//! What a cloud's refusal means: what to try next, and what to tell.

use crate::error::{Failure, Kind};
use crate::external::cloud::code;
use crate::external::{Class, Error};

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// None is free of that type, there: elsewhere, or another type.
    NoCapacity,
    /// The subnet has no address left: another one.
    NoAddresses,
    /// That type is not to be had in that region or zone.
    NotOffered,
    /// This account may have no more of that type.
    Quota,
    /// The same again, a little later.
    Again,
    /// There are no credentials, or they are over.
    Credentials,
    /// These credentials may not.
    Denied,
    /// The account has not opened that region.
    Region,
    /// Something that was configured does not exist or cannot be.
    Wrong,
}

/// What this refusal means.
pub fn meaning(error: &Error) -> Meaning {
    match code(error) {
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientCapacity"
        | "InsufficientReservedInstanceCapacity"
        | "SpotMaxPriceTooLow" => Meaning::NoCapacity,
        "InsufficientFreeAddressesInSubnet" => Meaning::NoAddresses,
        "Unsupported" | "UnsupportedOperation" | "InvalidInstanceType" | "UnsupportedInstanceType" => {
            Meaning::NotOffered
        }
        "VcpuLimitExceeded"
        | "InstanceLimitExceeded"
        | "MaxSpotInstanceCountExceeded"
        | "HostLimitExceeded" => Meaning::Quota,
        "NoCredentials"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch" => Meaning::Credentials,
        "UnauthorizedOperation" | "AccessDenied" | "Blocked" | "PendingVerification" => Meaning::Denied,
        "OptInRequired" | "AuthFailure" => Meaning::Region,
        _ => match error.class {
            Class::Busy | Class::Unreachable => Meaning::Again,
            _ => Meaning::Wrong,
        },
    }
}

/// The refusal as a user reads it, with what helps; exit code 104.
pub fn told(error: &Error, region: &str) -> Failure {
    let failure = Failure::outside(Kind::Remote, error);
    let (why, hints): (&str, Vec<String>) = match meaning(error) {
        Meaning::NoCapacity => (
            "EC2 has none free of any type in any zone that was tried",
            vec!["more `types` or `subnets` in `[ec2]` of kmt.toml, another `region`, or later".to_owned()],
        ),
        Meaning::NoAddresses => {
            ("no subnet has an address left", vec!["more `subnets` in `[ec2]` of kmt.toml".to_owned()])
        }
        Meaning::NotOffered => (
            "no type that was asked for is to be had there",
            vec![format!(
                "aws ec2 describe-instance-type-offerings --region {region} --location-type availability-zone; then `types` in `[ec2]`"
            )],
        ),
        Meaning::Quota => (
            "this account may have no more of them",
            vec![
                format!(
                    "aws service-quotas list-service-quotas --service-code ec2 --region {region} says how many; ask for more there"
                ),
                "smaller `types` in `[ec2]`, or end others: `kmt-run stack gc`".to_owned(),
            ],
        ),
        Meaning::Again => (
            "EC2 does not answer as it should",
            vec!["again a little later; `AWS_ENDPOINT_URL_EC2` says where EC2 is, if it is set".to_owned()],
        ),
        Meaning::Credentials => (
            "there are no credentials of AWS that hold now",
            vec![
                "`aws sso login`, `aws configure`, or AWS_PROFILE=NAME; then the same command again"
                    .to_owned(),
            ],
        ),
        Meaning::Denied => (
            "these credentials may not do that",
            vec![
                "aws sts get-caller-identity says whose they are".to_owned(),
                format!("they need {}", PERMISSIONS.join(", ")),
            ],
        ),
        Meaning::Region => (
            "the credentials do not hold in that region: they are wrong, or the account has not opened it",
            vec![
                format!("aws account enable-region --region-name {region}, where it is one to opt in to"),
                "aws sts get-caller-identity says whether they hold at all".to_owned(),
            ],
        ),
        Meaning::Wrong => ("EC2 does not accept what is configured", vec![wrong(code(error), region)]),
    };
    hints.into_iter().fold(failure.caused_by(why), Failure::hint)
}

/// What launching, looking and ending need.
pub const PERMISSIONS: [&str; 8] = [
    "ec2:RunInstances",
    "ec2:CreateTags",
    "ec2:DescribeInstances",
    "ec2:DescribeInstanceStatus",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeSubnets",
    "ec2:DescribeRegions",
    "ec2:TerminateInstances",
];

/// Which word of `[ec2]` a code is about.
fn wrong(code: &str, region: &str) -> String {
    let about = [
        ("InvalidAMI", "`ami`: an image is of one region and one architecture"),
        ("InvalidParameterValue", "`types` and `ami` of `[ec2]`: both are of one architecture"),
        ("InvalidKeyPair", "`key-name`, or `kmt-run config ssh-key`; aws ec2 describe-key-pairs lists them"),
        ("InvalidSubnet", "`subnets`"),
        ("InvalidGroup", "`security-groups`: they are of the same network as the subnets"),
        ("InvalidSecurityGroup", "`security-groups`: they are of the same network as the subnets"),
        ("InvalidIamInstanceProfile", "`instance-profile`"),
        ("VPCIdNotSpecified", "`subnets`: this account has no default network there"),
        ("MissingInput", "`subnets`: this account has no default network there"),
        ("IdempotentParameterMismatch", "the same command again, which asks anew"),
    ];
    match about.iter().find(|(start, _)| code.starts_with(start)) {
        Some((_, what)) => format!("look at {what} (region {region})"),
        None => format!("look at `[ec2]` of kmt.toml (region {region})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(class: Class, detail: &str) -> Error {
        Error::new("ec2", "launch", "m5d.metal", class, detail)
    }

    #[test]
    fn every_refusal_has_a_meaning_and_a_hint() {
        for (class, detail, expected, words) in [
            (Class::Busy, "InsufficientInstanceCapacity: x", Meaning::NoCapacity, "none free"),
            (Class::Busy, "InsufficientFreeAddressesInSubnet: x", Meaning::NoAddresses, "no subnet has"),
            (Class::Rejected, "Unsupported: x", Meaning::NotOffered, "describe-instance-type-offerings"),
            (Class::Rejected, "VcpuLimitExceeded: x", Meaning::Quota, "service-quotas"),
            (Class::Busy, "RequestLimitExceeded: x", Meaning::Again, "a little later"),
            (Class::Unreachable, "connection refused", Meaning::Again, "AWS_ENDPOINT_URL_EC2"),
            (Class::Denied, "NoCredentials: x", Meaning::Credentials, "aws sso login"),
            (Class::Denied, "ExpiredToken: x", Meaning::Credentials, "the same command again"),
            (Class::Denied, "UnauthorizedOperation: x", Meaning::Denied, "ec2:RunInstances"),
            (Class::Denied, "OptInRequired: x", Meaning::Region, "enable-region --region-name eu-x"),
            (Class::NotFound, "InvalidAMIID.NotFound: x", Meaning::Wrong, "`ami`"),
            (Class::NotFound, "InvalidKeyPair.NotFound: x", Meaning::Wrong, "`key-name`"),
            (Class::Rejected, "Dreaming: x", Meaning::Wrong, "`[ec2]` of kmt.toml"),
        ] {
            let error = error(class, detail);
            assert_eq!(meaning(&error), expected, "{detail}");
            let told = told(&error, "eu-x");
            assert_eq!(told.kind, Kind::Remote);
            assert!(told.one_line().contains(words), "{}", told.one_line());
        }
    }
}
