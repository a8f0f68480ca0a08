use super::*;
use crate::S3Credentials;
use diaspore_policy::ProviderId;

fn id() -> ProviderId {
    ProviderId::new("p").unwrap()
}

fn keys() -> Credentials {
    [(id(), S3Credentials::new("A".to_owned(), "S".to_owned()))].into_iter().collect()
}

fn refusal(spec: &ProviderSpec, keys: &Credentials) -> String {
    open(spec, keys, &FleetOptions::default()).unwrap_err().to_string()
}

#[test]
fn accounts_that_cannot_work_are_refused_with_what_to_do() {
    let s3 = |endpoint: &str| ProviderSpec::s3(id(), endpoint, "bucket");
    assert!(refusal(&s3("https://example.org"), &Credentials::new()).contains("no credentials; give an access key"));
    assert!(refusal(&s3("ftp://example.org"), &keys()).contains("the scheme must be https"));
    let text = refusal(&s3("https://user:SECRET@example.org"), &keys());
    assert!(text.contains("do not belong into the URL") && !text.contains("SECRET"), "{text}");
    assert!(refusal(&s3("https://example.org/?x=1"), &keys()).contains("query"));
    let azure = ProviderSpec { dialect: Dialect::Azure, bucket: "c".to_owned(), ..ProviderSpec::memory(id()) };
    assert!(refusal(&azure, &keys()).contains("the Azure dialect is not built into this version"));
}

#[test]
fn only_this_machine_is_loopback() {
    let parse = |endpoint: &str| Endpoint::parse(&ProviderSpec::s3(id(), endpoint, "b")).unwrap();
    for (endpoint, tls, loopback) in [
        ("http://127.0.0.1:9000", false, true),
        ("http://[::1]:9000", false, true),
        ("http://localhost:4566", false, true),
        ("http://192.168.1.5:9000", false, false),
        ("http://127.0.0.1.example.org", false, false),
        ("https://s3.example.org", true, false),
    ] {
        let parsed = parse(endpoint);
        assert_eq!((parsed.tls, parsed.loopback), (tls, loopback), "{endpoint}");
    }
}

#[test]
fn virtual_addressing_puts_the_bucket_into_the_host() {
    let spec = ProviderSpec::s3(id(), "https://s3.eu-west-1.amazonaws.com", "shards");
    let endpoint = Endpoint::parse(&spec).unwrap();
    assert_eq!(endpoint.for_bucket(&spec, true), "https://shards.s3.eu-west-1.amazonaws.com");
    assert_eq!(endpoint.for_bucket(&spec, false), "https://s3.eu-west-1.amazonaws.com");
    assert!(open(&ProviderSpec { addressing: Addressing::Virtual, ..spec }, &keys(), &FleetOptions::default()).is_ok());
}
