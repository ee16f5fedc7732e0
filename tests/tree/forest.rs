//! A Go tree in the shape of a large one, made for a test: 60 packages with shared internals, cgo in two, testdata, helper
//! programs, C objects for BPF, two components.

use std::fs;
use std::path::Path;

/// Packages with tests.
pub(crate) const PACKAGES: usize = 60;
/// Shared packages: package `n` uses number `n % SHARED`, each of those uses the base.
pub(crate) const SHARED: usize = 6;
/// Packages whose number is below this use cgo.
const CGO: usize = 2;

pub(crate) fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap_or(root)).unwrap();
    fs::write(path, text).unwrap();
}

/// Folder of a package; the last ten are another component's.
pub(crate) fn folder(number: usize) -> String {
    let area = if number < 50 { "network" } else { "security" };
    format!("pkg/{area}/p{number:02}")
}

/// Plants it.
pub(crate) fn plant(root: &Path) {
    write(root, "go.mod", "module example.com/forest\n\ngo 1.18\n");
    write(root, ".gitignore", "build/\n*.log\n");
    write(root, "kmt.toml", KMT_TOML);
    write(root, "internal/base/base.go", &source("base", "", 40));
    for number in 0..SHARED {
        let uses = "import \"example.com/forest/internal/base\"\n\nvar Base = base.F0\n";
        write(root, &format!("internal/s{number}/s.go"), &source(&format!("s{number}"), uses, 40));
    }
    for number in 0..PACKAGES {
        package(root, number);
    }
    for name in ["client", "server"] {
        let main = "package main\n\nimport \"example.com/forest/internal/base\"\n\nfunc main() { println(base.F0(1)) }\n";
        write(root, &format!("pkg/network/testutil/{name}/main.go"), main);
    }
    write(root, "cmd/system-probe/main.go", "package main\n\nfunc main() { println(\"probe\") }\n");
    write(
        root,
        "ebpf/common.h",
        "typedef unsigned int u32;\n#define SEC(name) __attribute__((section(name), used))\n",
    );
    for name in ["tracer", "usm"] {
        let text = format!(
            "#include \"common.h\"\nSEC(\"socket\")\nu32 {name}(void *context)\n{{\n\treturn context != 0;\n}}\nchar _license[] SEC(\"license\") = \"GPL\";\n"
        );
        write(root, &format!("ebpf/{name}.c"), &text);
    }
}

fn package(root: &Path, number: usize) {
    let (folder, name, shared) = (folder(number), format!("p{number:02}"), number % SHARED);
    let mut uses = format!("import \"example.com/forest/internal/s{shared}\"\n\nvar Shared = s{shared}.F0\n");
    if number < CGO {
        uses = format!(
            "// static int twice(int x) {{ return 2 * x; }}\nimport \"C\"\n\n{uses}\nfunc Twice(x int) int {{ return int(C.twice(C.int(x))) }}\n"
        );
    }
    write(root, &format!("{folder}/p.go"), &source(&name, &uses, 20));
    let test = format!(
        "package {name}\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\n\
         func TestShared(t *testing.T) {{\n\tif Shared(1) != F0(1) {{\n\t\tt.Fatal(\"differs\")\n\t}}\n}}\n\n\
         func TestWords(t *testing.T) {{\n\tif _, err := os.Stat(\"testdata\"); err != nil && {number}%3 == 0 {{\n\t\tt.Fatal(err)\n\t}}\n}}\n"
    );
    write(root, &format!("{folder}/p_test.go"), &test);
    if number.is_multiple_of(3) {
        write(root, &format!("{folder}/testdata/words.txt"), &format!("words of {number}\n"));
        write(root, &format!("{folder}/testdata/deep/old.log"), "git ignores this\n");
    }
}

/// A package of so many functions.
fn source(name: &str, uses: &str, functions: usize) -> String {
    let mut text = format!("package {name}\n\n{uses}\n");
    for number in 0..functions {
        text.push_str(&format!(
            "func F{number}(x int) int {{\n\tfor i := 0; i < {number}; i++ {{\n\t\tx += i * x % 7\n\t}}\n\treturn x\n}}\n\n"
        ));
    }
    text
}

const KMT_TOML: &str = r#"default-component = "system-probe"

[component.system-probe]
builder = "go"
layout = "agent"
packages = ["./pkg/network/..."]
exclude = ["./pkg/network/testutil/..."]
binaries = ["./cmd/system-probe"]
helpers = ["./pkg/network/testutil/client", "./pkg/network/testutil/server"]
cgo = true
artifacts = [{ from = "build/{arch}/*.o", to = "pkg/ebpf/bytecode/build/{arch}" }]

[[component.system-probe.command]]
argv = ["sh", "-c", "mkdir -p build/{arch} && for f in ebpf/*.c; do clang -O2 -g -target bpf -c $f -o build/{arch}/$(basename $f .c).o || exit 1; done"]
inputs = ["ebpf/*.[ch]"]
outputs = ["build/{arch}/tracer.o", "build/{arch}/usm.o"]

[component.security-agent]
builder = "go"
layout = "agent"
packages = ["./pkg/security/..."]
tags = ["functionaltests"]
"#;
