//! A network of a stack's own: a bridge on the host, NAT to the world, DHCP with a fixed lease for each number.
//!
//! The card of machine number `n` has an address of hardware that follows from the stack and `n`, so that all leases
//! are known before any machine is.

use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::xml::{NAMESPACE, attribute};

/// Numbers of machines in a network; 1 is the host's.
pub const NUMBERS: std::ops::RangeInclusive<u8> = 2..=254;
/// Third numbers of `192.168.N.0/24` that networks are made of.
const THIRD: std::ops::Range<u8> = 96..250;

/// A private `/24`, as `192.168.100.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Subnet([u8; 3]);

impl Subnet {
    /// The subnet whose addresses begin so.
    pub const fn new(first: u8, second: u8, third: u8) -> Subnet {
        Subnet([first, second, third])
    }

    /// All that networks are made of; which one comes first depends on the stack, so that two stacks that are made at
    /// once hardly meet.
    pub fn candidates(stack: Uuid) -> impl Iterator<Item = Subnet> {
        let count = THIRD.len();
        let first = usize::from(stack.as_bytes()[15]) % count;
        let all = THIRD.cycle().skip(first).take(count);
        all.map(|third| Subnet([192, 168, third]))
    }

    /// The address of that number in it.
    pub fn address(self, number: u8) -> Ipv4Addr {
        let [a, b, c] = self.0;
        Ipv4Addr::new(a, b, c, number)
    }

    /// The number of an address in it; `None` where it lies elsewhere.
    pub fn number(self, address: Ipv4Addr) -> Option<u8> {
        let [a, b, c, number] = address.octets();
        ([a, b, c] == self.0).then_some(number)
    }

    /// Whether an address is in both this and `network`, such as `192.168.0.0/16`. What cannot be read meets nothing.
    pub fn meets(self, network: &str) -> bool {
        let Some((address, length)) = network.split_once('/') else { return false };
        let (Ok(address), Ok(length)) = (address.parse::<Ipv4Addr>(), length.parse::<u32>()) else {
            return false;
        };
        let mask = u32::MAX.checked_shl(32 - length.min(24)).unwrap_or(0);
        u32::from(address) & mask == u32::from(self.address(0)) & mask
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/24", self.address(0))
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Subnet, String> {
        let address = text.strip_suffix(".0/24").and_then(|start| format!("{start}.0").parse().ok());
        let octets = address.as_ref().map(Ipv4Addr::octets);
        octets.map(|[a, b, c, _]| Subnet([a, b, c])).ok_or_else(|| format!("`{text}` is no /24"))
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Subnet, String> {
        text.parse()
    }
}

/// A network to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Name, unique on the host.
    pub name: String,
    /// The stack it belongs to; kept in its metadata.
    pub stack: Uuid,
    /// Its addresses.
    pub subnet: Subnet,
}

/// A network that says it is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedNetwork {
    /// Its name.
    pub name: String,
    /// Stack in its metadata.
    pub stack: Uuid,
}

impl NetworkSpec {
    /// Address of the hardware of machine number `number`.
    pub fn mac(stack: Uuid, number: u8) -> String {
        let bytes = stack.as_bytes();
        format!("52:54:{:02x}:{:02x}:{:02x}:{number:02x}", bytes[0], bytes[1], bytes[2])
    }

    /// Its XML. The bridge has the network's name, which is short enough for one.
    pub(super) fn xml(&self) -> String {
        let mut xml = format!("<network><name>{}</name><uuid>{}</uuid>", self.name, self.stack);
        let _ = write!(
            xml,
            "<metadata><kmt:machine xmlns:kmt='{NAMESPACE}' stack='{}' id=''/></metadata>",
            self.stack
        );
        let _ = write!(xml, "<forward mode='nat'/><bridge name='{}' stp='off' delay='0'/>", self.name);
        let _ = write!(xml, "<ip address='{}' prefix='24'><dhcp>", self.subnet.address(1));
        let (first, last) = (self.subnet.address(*NUMBERS.start()), self.subnet.address(*NUMBERS.end()));
        let _ = write!(xml, "<range start='{first}' end='{last}'/>");
        for number in NUMBERS {
            let (mac, address) = (NetworkSpec::mac(self.stack, number), self.subnet.address(number));
            let _ = write!(xml, "<host mac='{mac}' ip='{address}'/>");
        }
        xml.push_str("</dhcp></ip></network>");
        xml
    }
}

/// The networks in the XML of one of libvirt's, as `address/length`.
pub(super) fn subnets_of(xml: &str) -> Vec<String> {
    let subnet = |element: &str| {
        let address = attribute(element, "address")?;
        let length = attribute(element, "prefix").or_else(|| {
            let mask: Ipv4Addr = attribute(element, "netmask")?.parse().ok()?;
            Some(u32::from(mask).leading_ones().to_string())
        });
        Some(format!("{address}/{}", length?))
    };
    let elements = xml.split("<ip ").skip(1).filter_map(|rest| rest.split('>').next());
    elements.filter_map(|element| subnet(&format!(" {element}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_written_read_and_met() {
        let subnet: Subnet = "192.168.100.0/24".parse().unwrap();
        assert_eq!(subnet.to_string(), "192.168.100.0/24");
        for text in ["192.168.100.1/24", "192.168.100.0/16", "x.0/24", "192.168.0/24"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
        for text in
            ["192.168.100.0/24", "192.168.0.0/16", "192.168.100.64/26", "0.0.0.0/0", "192.168.100.7/32"]
        {
            assert!(subnet.meets(text), "{text}");
        }
        for text in ["192.168.101.0/24", "10.0.0.0/8", "192.168.101.7/32", "none"] {
            assert!(!subnet.meets(text), "{text}");
        }
        let address = subnet.address(7);
        assert_eq!((address.to_string().as_str(), subnet.number(address)), ("192.168.100.7", Some(7)));
        assert_eq!(subnet.number(Ipv4Addr::new(10, 0, 2, 7)), None);
    }

    #[test]
    fn candidates_are_all_private_and_each_comes_once() {
        for stack in [Uuid::nil(), Uuid::max()] {
            let all: Vec<Subnet> = Subnet::candidates(stack).collect();
            let different: std::collections::HashSet<Subnet> = all.iter().copied().collect();
            assert_eq!((all.len(), different.len()), (154, 154));
            assert!(all.iter().all(|subnet| subnet.address(1).is_private()));
        }
    }

    #[test]
    fn leases_are_fixed_and_subnets_are_read_back() {
        let stack = Uuid::from_u128(0x1234_5678 << 96);
        let subnet = "192.168.100.0/24".parse().unwrap();
        let xml = NetworkSpec { name: "kmt-12345678".to_owned(), stack, subnet }.xml();
        assert!(xml.contains("<host mac='52:54:12:34:56:07' ip='192.168.100.7'/>"), "{xml}");
        assert_eq!(xml.matches("<host ").count(), NUMBERS.count());
        assert_eq!(subnets_of(&xml), ["192.168.100.1/24"]);
        let other =
            "<network><ip family='ipv4' address='10.1.0.1' netmask='255.255.0.0'><dhcp/></ip></network>";
        assert_eq!(subnets_of(other), ["10.1.0.1/16"]);
        assert_eq!(super::super::xml::owner(&xml).unwrap().0, stack.to_string());
    }
}
