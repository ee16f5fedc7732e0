//! EC2, by Amazon's own library.
//!
//! Credentials, region and endpoints (`AWS_ENDPOINT_URL_EC2`) are where its tools look for them. The library repeats what was
//! throttled three times by itself; an order carries its token, so a repeated one is the same host.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use tokio::sync::OnceCell;

use super::{Cloud, Health, Instance, InstanceState, Order, Subnet};
use crate::external::{Class, Error, Result};

const SYSTEM: &str = "ec2";
/// Device of the disk besides that of the image; the kernel calls it otherwise.
const DISK: &str = "/dev/sdf";

/// EC2; nothing is read and nobody asked before the first call.
#[derive(Debug, Default)]
pub struct Ec2 {
    shared: OnceCell<SdkConfig>,
}

impl Ec2 {
    async fn shared(&self) -> &SdkConfig {
        let load = || async {
            let client = aws_smithy_http_client::Builder::new()
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .build_https();
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(5))
                .operation_attempt_timeout(Duration::from_secs(30))
                .operation_timeout(Duration::from_secs(90));
            aws_config::defaults(BehaviorVersion::latest())
                .http_client(client)
                .timeout_config(timeouts.build())
                .retry_config(RetryConfig::standard().with_max_attempts(3))
                .load()
                .await
        };
        self.shared.get_or_init(load).await
    }

    async fn client(&self, region: &str) -> Client {
        let config = aws_sdk_ec2::config::Builder::from(self.shared().await);
        Client::from_conf(config.region(Region::new(region.to_owned())).build())
    }

    async fn ordered(&self, order: &Order) -> RunInstancesFluentBuilder {
        let with_tags = |kind: types::ResourceType| {
            let tags =
                order.tags.iter().map(|(name, value)| types::Tag::builder().key(name).value(value).build());
            types::TagSpecification::builder().resource_type(kind).set_tags(Some(tags.collect())).build()
        };
        let metadata = types::InstanceMetadataOptionsRequest::builder()
            .http_tokens(types::HttpTokensState::Required)
            .http_put_response_hop_limit(1)
            .build();
        let request = self.client(&order.region).await.run_instances();
        let mut request = request
            .min_count(1)
            .max_count(1)
            .client_token(&order.token)
            .instance_type(types::InstanceType::from(order.instance_type.as_str()))
            .image_id(&order.image)
            .set_key_name(order.key_name.clone())
            .user_data(STANDARD.encode(&order.user_data))
            .instance_initiated_shutdown_behavior(types::ShutdownBehavior::Terminate)
            .metadata_options(metadata)
            .tag_specifications(with_tags(types::ResourceType::Instance))
            .tag_specifications(with_tags(types::ResourceType::Volume));
        request = placed(request, order);
        if let Some(name) = &order.instance_profile {
            let profile = types::IamInstanceProfileSpecification::builder().name(name).build();
            request = request.iam_instance_profile(profile);
        }
        if order.nested {
            let on = types::NestedVirtualizationSpecification::Enabled;
            request =
                request.cpu_options(types::CpuOptionsRequest::builder().nested_virtualization(on).build());
        }
        if let Some(size) = order.disk_gib {
            request = request.block_device_mappings(disk(size));
        }
        if order.spot {
            let once = types::SpotMarketOptions::builder()
                .spot_instance_type(types::SpotInstanceType::OneTime)
                .instance_interruption_behavior(types::InstanceInterruptionBehavior::Terminate);
            let market = types::InstanceMarketOptionsRequest::builder()
                .market_type(types::MarketType::Spot)
                .spot_options(once.build());
            request = request.instance_market_options(market.build());
        }
        request
    }
}

/// Where it is: whoever asks for an address of a kind must describe the card.
fn placed(request: RunInstancesFluentBuilder, order: &Order) -> RunInstancesFluentBuilder {
    let groups = (!order.security_groups.is_empty()).then(|| order.security_groups.clone());
    if order.public_address.is_none() {
        return request.set_subnet_id(order.subnet.clone()).set_security_group_ids(groups);
    }
    let card = types::InstanceNetworkInterfaceSpecification::builder()
        .device_index(0)
        .set_associate_public_ip_address(order.public_address)
        .set_subnet_id(order.subnet.clone())
        .set_groups(groups)
        .delete_on_termination(true);
    request.network_interfaces(card.build())
}

/// A disk that goes with its host.
fn disk(size_gib: u32) -> types::BlockDeviceMapping {
    let volume = types::EbsBlockDevice::builder()
        .volume_type(types::VolumeType::Gp3)
        .volume_size(i32::try_from(size_gib).unwrap_or(i32::MAX))
        .iops(6000)
        .throughput(500)
        .delete_on_termination(true);
    types::BlockDeviceMapping::builder().device_name(DISK).ebs(volume.build()).build()
}

#[async_trait]
impl Cloud for Ec2 {
    async fn default_region(&self) -> Option<String> {
        self.shared().await.region().map(|region| region.as_ref().to_owned())
    }

    async fn regions(&self, from: &str) -> Result<Vec<String>> {
        let answer = self.client(from).await.describe_regions().all_regions(false).send().await;
        let answer = answer.map_err(|error| refused("list the regions of", from, &error))?;
        Ok(answer.regions().iter().filter_map(|region| region.region_name().map(str::to_owned)).collect())
    }

    async fn subnets(&self, region: &str, ids: &[String]) -> Result<Vec<Subnet>> {
        let mut request = self.client(region).await.describe_subnets();
        if ids.is_empty() {
            let default = types::Filter::builder().name("default-for-az").values("true").build();
            request = request.filters(default);
        } else {
            request = request.set_subnet_ids(Some(ids.to_vec()));
        }
        let answer = request.send().await.map_err(|error| refused("list the subnets of", region, &error))?;
        let subnet = |subnet: &types::Subnet| {
            Some(Subnet { id: subnet.subnet_id()?.to_owned(), zone: subnet.availability_zone()?.to_owned() })
        };
        Ok(answer.subnets().iter().filter_map(subnet).collect())
    }

    async fn offered(&self, region: &str, kinds: &[String]) -> Result<Vec<(String, String)>> {
        let wanted = types::Filter::builder().name("instance-type").set_values(Some(kinds.to_vec())).build();
        let request = self.client(region).await.describe_instance_type_offerings();
        let request = request.location_type(types::LocationType::AvailabilityZone).filters(wanted);
        let mut pages = request.into_paginator().send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| refused("list what is offered in", region, &error))?;
            all.extend(page.instance_type_offerings().iter().filter_map(|offer| {
                Some((offer.instance_type()?.as_str().to_owned(), offer.location()?.to_owned()))
            }));
        }
        Ok(all)
    }

    async fn rehearse(&self, order: &Order) -> Result<()> {
        match self.ordered(order).await.dry_run(true).send().await {
            Ok(_) => Ok(()),
            // What would succeed is told as an error.
            Err(error) if error.code() == Some("DryRunOperation") => Ok(()),
            Err(error) => Err(refused("rehearse the launch of", &order.instance_type, &error)),
        }
    }

    async fn launch(&self, order: &Order) -> Result<Instance> {
        let answer = self.ordered(order).await.send().await;
        let answer = answer.map_err(|error| refused("launch", &order.instance_type, &error))?;
        let instance = answer.instances().first().and_then(|instance| seen(instance, &order.region));
        instance.ok_or_else(|| {
            let words = "the answer names no instance";
            Error::new(SYSTEM, "launch", &order.instance_type, Class::Unintelligible, words)
        })
    }

    async fn tagged(&self, region: &str, tag: &str, value: Option<&str>) -> Result<Vec<Instance>> {
        let filter = match value {
            Some(value) => types::Filter::builder().name(format!("tag:{tag}")).values(value),
            None => types::Filter::builder().name("tag-key").values(tag),
        };
        let mut pages =
            self.client(region).await.describe_instances().filters(filter.build()).into_paginator().send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| refused("list the instances in", region, &error))?;
            let instances = page.reservations().iter().flat_map(types::Reservation::instances);
            all.extend(instances.filter_map(|instance| seen(instance, region)));
        }
        Ok(all)
    }

    async fn health(&self, region: &str, id: &str) -> Result<Health> {
        let answer = self.client(region).await.describe_instance_status().instance_ids(id).send().await;
        let answer = answer.map_err(|error| refused("look at", id, &error))?;
        let Some(status) = answer.instance_statuses().first() else { return Ok(Health::Checking) };
        let of = |summary: Option<&types::InstanceStatusSummary>| summary.and_then(|s| s.status().cloned());
        let both = [of(status.system_status()), of(status.instance_status())];
        Ok(if both.contains(&Some(types::SummaryStatus::Impaired)) {
            Health::Impaired
        } else if both.iter().all(|one| *one == Some(types::SummaryStatus::Ok)) {
            Health::Well
        } else {
            Health::Checking
        })
    }

    async fn end(&self, region: &str, ids: &[String]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let request = self.client(region).await.terminate_instances().set_instance_ids(Some(ids.to_vec()));
        request.send().await.map(|_| ()).map_err(|error| refused("end", &ids.join(", "), &error))
    }

    async fn console(&self, region: &str, id: &str) -> Result<String> {
        let answer = self.client(region).await.get_console_output().instance_id(id).send().await;
        let answer = answer.map_err(|error| refused("read the console of", id, &error))?;
        let text = answer.output().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// An instance of the library as one of the door.
fn seen(instance: &types::Instance, region: &str) -> Option<Instance> {
    use types::InstanceStateName as Name;
    let state = match instance.state().and_then(|state| state.name()) {
        Some(Name::Pending) => InstanceState::Pending,
        Some(Name::Running) => InstanceState::Running,
        Some(Name::Stopping | Name::Stopped) => InstanceState::Stopped,
        Some(Name::ShuttingDown | Name::Terminated) => InstanceState::Ended,
        // A new instance is told before it has a state.
        _ => InstanceState::Pending,
    };
    let some = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let tag = |tag: &types::Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
    Some(Instance {
        id: instance.instance_id()?.to_owned(),
        region: region.to_owned(),
        zone: some(instance.placement().and_then(|at| at.availability_zone())).unwrap_or_default(),
        instance_type: instance.instance_type().map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
        state,
        reason: some(instance.state_reason().and_then(|reason| reason.message())),
        private_address: some(instance.private_ip_address()),
        public_address: some(instance.public_ip_address()),
        launched: instance.launch_time().and_then(|at| DateTime::from_timestamp(at.secs(), 0)),
        token: some(instance.client_token()).unwrap_or_default(),
        tags: instance.tags().iter().filter_map(tag).collect::<BTreeMap<_, _>>(),
    })
}

/// A refusal as an error of the door: its code first, no credential ever.
fn refused<E>(operation: &'static str, subject: &str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    if let Some(code) = error.code() {
        let words = error.message().unwrap_or_default();
        return Error::new(SYSTEM, operation, subject, class(code), format!("{code}: {words}"));
    }
    let whole = DisplayErrorContext(error).to_string();
    let without_credentials =
        ["credentials", "Credentials", "identity"].iter().any(|word| whole.contains(word));
    match error {
        SdkError::TimeoutError(_) => {
            Error::new(SYSTEM, operation, subject, Class::Unreachable, "no answer in time")
        }
        SdkError::DispatchFailure(failure)
            if !failure.is_io() && !failure.is_timeout() && without_credentials =>
        {
            Error::new(SYSTEM, operation, subject, Class::Denied, "NoCredentials: there are none")
        }
        SdkError::ConstructionFailure(_) if without_credentials => {
            Error::new(SYSTEM, operation, subject, Class::Denied, "NoCredentials: there are none")
        }
        SdkError::ResponseError(_) => Error::new(
            SYSTEM,
            operation,
            subject,
            Class::Unintelligible,
            "no answer of EC2: what is behind the address?",
        ),
        _ => Error::new(SYSTEM, operation, subject, Class::Unreachable, innermost(error)),
    }
}

/// The last cause: the words of the network.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// What kind of refusal a code is.
fn class(code: &str) -> Class {
    match code {
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientCapacity"
        | "InsufficientReservedInstanceCapacity"
        | "InsufficientFreeAddressesInSubnet"
        | "SpotMaxPriceTooLow"
        | "MaxSpotInstanceCountExceeded" => Class::Busy,
        "RequestLimitExceeded" | "Throttling" | "ThrottlingException" | "RequestThrottled" | "SlowDown" => {
            Class::Busy
        }
        "InternalError" | "InternalFailure" | "ServiceUnavailable" | "Unavailable" | "RequestTimeout" => {
            Class::Unreachable
        }
        "UnauthorizedOperation" | "AuthFailure" | "OptInRequired" | "Blocked" | "AccessDenied" => {
            Class::Denied
        }
        "ExpiredToken"
        | "RequestExpired"
        | "ExpiredTokenException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch" => Class::Denied,
        code if code.ends_with(".NotFound") || code.ends_with("NotFound") => Class::NotFound,
        _ => Class::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_classes() {
        for (code, expected) in [
            ("InsufficientInstanceCapacity", Class::Busy),
            ("RequestLimitExceeded", Class::Busy),
            ("InternalError", Class::Unreachable),
            ("UnauthorizedOperation", Class::Denied),
            ("ExpiredToken", Class::Denied),
            ("InvalidAMIID.NotFound", Class::NotFound),
            ("VcpuLimitExceeded", Class::Rejected),
        ] {
            assert_eq!(class(code), expected, "{code}");
        }
    }
}
