//! EC2 that is none: moto's server on loopback, from PyPI. It keeps what is ordered and runs nothing.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Call, wait_for};

const PACKAGE: &str = "moto[ec2,s3,server]";
/// How long its server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Region of the stories.
pub(crate) const REGION: &str = "eu-west-1";

/// Tells all instances of a region as JSON, with the user data of each.
const INSTANCES: &str = "
import base64, boto3, json, sys
ec2 = boto3.client('ec2', region_name=sys.argv[1])
found = [one for page in ec2.describe_instances()['Reservations'] for one in page['Instances']]
for one in found:
    kept = ec2.describe_instance_attribute(InstanceId=one['InstanceId'], Attribute='userData')
    one['UserData'] = base64.b64decode(kept['UserData'].get('Value', '')).decode()
    kept = ec2.describe_instance_attribute(InstanceId=one['InstanceId'], Attribute='instanceInitiatedShutdownBehavior')
    one['Shutdown'] = kept['InstanceInitiatedShutdownBehavior'].get('Value')
print(json.dumps(found, default=str))
";

/// A server; dropped, it ends.
pub(crate) struct Moto {
    server: Child,
    bin: PathBuf,
    port: u16,
}

/// Its programs; they are installed at first.
fn programs() -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto");
    let done = home.join("done");
    if !done.is_file() {
        let must = |program: &Path, args: &[&str]| {
            let output = Command::new(program).args(args).output().unwrap();
            assert!(output.status.success(), "{}: {output:?}", program.display());
        };
        must(Path::new("python3"), &["-m", "venv", home.to_str().unwrap()]);
        must(&home.join("bin/pip"), &["install", "--quiet", "--disable-pip-version-check", PACKAGE]);
        fs::write(done, "").unwrap();
    }
    home.join("bin")
}

impl Moto {
    /// A server without instances.
    pub(crate) fn new() -> Moto {
        let bin = programs();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Command::new(bin.join("moto_server"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Moto { server, bin, port };
        wait_for("answer of moto", PATIENCE, || TcpStream::connect(("127.0.0.1", port)).ok());
        moto
    }

    fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL_EC2", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ACCESS_KEY_ID", "testing".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
        ]
    }

    /// The call of somebody who has an account there.
    pub(crate) fn known_to<'h>(&self, call: Call<'h>) -> Call<'h> {
        self.environment().iter().fold(call, |call, (name, value)| call.env(name, value))
    }

    /// All instances, those that ended too.
    pub(crate) fn instances(&self) -> Vec<Value> {
        let mut command = Command::new(self.bin.join("python"));
        command.args(["-c", INSTANCES, REGION]).envs(self.environment());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Those that are not ending.
    pub(crate) fn alive(&self) -> Vec<Value> {
        let ended =
            |one: &Value| ["terminated", "shutting-down"].contains(&one["State"]["Name"].as_str().unwrap());
        self.instances().into_iter().filter(|one| !ended(one)).collect()
    }
}

/// The secret key of the account.
pub(crate) const SECRET: &str = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY";

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
