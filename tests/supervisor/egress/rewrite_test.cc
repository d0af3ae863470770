#include "supervisor/egress/rewrite.h"

#include <doctest/doctest.h>

#include <string>

namespace creel::egress {
namespace {

bool Holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

EgressService Service(EgressCredential::Kind kind) {
  EgressService service;
  service.name = "api";
  service.url = "https://api.example.org:8443/v1/";
  service.credential.kind = kind;
  service.credential.name = kind == EgressCredential::Kind::kQuery ? "key" : "X-Api-Key";
  return service;
}

std::string Head(const EgressService& service, const Secret* secret,
                 const std::vector<Header>& headers, const std::string& url,
                 const Framing& framing = {}) {
  RequestHead head;
  head.method = "POST";
  head.headers = headers;
  const ServiceUrl split = SplitServiceUrl(service);
  return UpstreamHead(head, *ParseUrlTarget(url),
                      {.host = split.host,
                       .base = split.base,
                       .service = &service,
                       .secret = secret,
                       .framing = framing});
}

TEST_SUITE("Rewrite") {
  TEST_CASE("a service's URL is taken apart") {
    ServiceUrl split = SplitServiceUrl(Service(EgressCredential::Kind::kNone));
    CHECK(split.destination.host == "api.example.org");
    CHECK(split.destination.port == 8443);
    CHECK(split.destination.tls);
    CHECK(split.destination.trusted);
    CHECK(split.host == "api.example.org:8443");
    CHECK(split.base == "/v1");
    EgressService service;
    service.url = "http://[::1]:3000";
    split = SplitServiceUrl(service);
    CHECK(split.destination.host == "::1");
    CHECK(split.destination.port == 3000);
    CHECK_FALSE(split.destination.tls);
    service.url = "unix:///run/x.sock";
    CHECK(SplitServiceUrl(service).destination.unix_path == "/run/x.sock");
  }

  TEST_CASE("the credential is added, and nothing of the sandbox's own in its place") {
    const Secret secret{.value = "k3y-value", .header = "k3y-value", .forms = {}};
    const EgressService service = Service(EgressCredential::Kind::kHeader);
    const std::string head =
        Head(service, &secret,
             {{"Host", "api.creel"},
              {"x-api-key", "mine"},
              {"Authorization", "Bearer mine"},
              {"Proxy-Authorization", "Basic mine"},
              {"Connection", "keep-alive, X-Drop"},
              {"X-Drop", "1"},
              {"Accept-Encoding", "gzip"},
              {"Range", "bytes=0-1"},
              {"X-Forwarded-For", "127.0.0.1"},
              {"Accept", "*/*"}},
             "http://api.creel/items?x=1", {.kind = Framing::Kind::kLength, .length = 7});
    CHECK(head.starts_with("POST /v1/items?x=1 HTTP/1.1\r\nHost: api.example.org:8443\r\n"));
    CHECK(Holds(head, "\r\nX-Api-Key: k3y-value\r\n"));
    CHECK(Holds(head, "\r\nAccept: */*\r\n"));
    CHECK(Holds(head, "\r\nAccept-Encoding: identity\r\n"));
    CHECK(Holds(head, "\r\nContent-Length: 7\r\n"));
    for (const char* gone : {"mine", "X-Drop", "gzip", "Range", "Forwarded", "keep-alive"}) {
      CAPTURE(gone);
      CHECK_FALSE(Holds(head, gone));
    }
  }

  TEST_CASE("headers by which the sandbox could be taken for somebody else are left out") {
    const EgressService service = Service(EgressCredential::Kind::kNone);
    for (const char* name : {
             "Forwarded",
             "Proxy",
             "X-Forwarded-User",
             "x-forwarded-email",
             "X-Forwarded-Client-Cert",
             "X-Forwarded-Preferred-Username",
             "X-Remote-User",
             "X-Remote-Group",
             "X-Remote-Extra-scopes",
             "Remote-User",
             "Remote-Groups",
             "X-Auth-Request-Email",
             "X-Original-Remote-Addr",
             "X-User",
             "X-WEBAUTH-USER",
             "X-SSL-Client-S-DN",
             "X-Client-Cert",
             "X-Client-Certificate",
             "CF-Connecting-IP",
             "CF-Connecting-IPv6",
             "Cf-Access-Authenticated-User-Email",
             "Fastly-Client-IP",
             "X-Cluster-Client-IP",
             "Client-IP",
             "X-ProxyUser-Ip",
             "x-envoy-external-address",
             "X-Envoy-Original-Path",
             "Tailscale-User-Login",
             "X-Goog-Authenticated-User-Email",
             "X-Amzn-Oidc-Identity",
             "X-Authenticated-UserId",
             "X-MS-CLIENT-PRINCIPAL-NAME",
             "X-Pomerium-Claim-Email",
         }) {
      CAPTURE(name);
      CHECK_FALSE(
          Holds(Head(service, nullptr, {{name, "somebody"}}, "http://api.creel/x"), "somebody"));
    }
    for (const char* name : {"X-Username", "X-Auth-Token", "X-Forwards", "X-Remot", "X-Request-Id",
                             "X-Goog-Api-Key", "X-Amzn-Trace-Id", "CF-Access-Client-Id"}) {
      CAPTURE(name);
      CHECK(Holds(Head(service, nullptr, {{name, "somebody"}}, "http://api.creel/x"), "somebody"));
    }
  }

  TEST_CASE("a credential in such a header is added, and the sandbox's own is not") {
    const Secret secret{.value = "k3y-value", .header = "k3y-value", .forms = {}};
    EgressService service = Service(EgressCredential::Kind::kHeader);
    for (const char* name : {"X-Remote-User", "X-User", "X-Forwarded-Access-Token"}) {
      service.credential.name = name;
      const std::string head =
          Head(service, &secret, {{name, "somebody"}, {AsciiLower(name), "other"}},
               "http://api.creel/x");
      CAPTURE(head);
      CHECK(Holds(head, std::string("\r\n") + name + ": k3y-value\r\n"));
      CHECK_FALSE(Holds(head, "somebody"));
      CHECK_FALSE(Holds(head, "other"));
    }
  }

  TEST_CASE("a credential in the query takes the place of any of the same name") {
    const Secret secret{.value = "a b&c", .header = "", .forms = {}};
    const EgressService service = Service(EgressCredential::Kind::kQuery);
    CHECK(Head(service, &secret, {}, "http://api.creel/x?a=1&key=mine&%6bey=mine&b=2")
              .starts_with("POST /v1/x?a=1&b=2&key=a%20b%26c HTTP/1.1\r\n"));
    CHECK(Head(service, &secret, {}, "http://api.creel/x?KEY=m&+key=m&key[]=m&key%5bx%5d=m&keys=1")
              .starts_with("POST /v1/x?keys=1&key=a%20b%26c HTTP/1.1\r\n"));
    CHECK(
        Head(service, &secret, {}, "http://api.creel/x").starts_with("POST /v1/x?key=a%20b%26c "));
  }

  TEST_CASE("without a credential the sandbox may bring its own") {
    const std::string head =
        Head(Service(EgressCredential::Kind::kNone), nullptr,
             {{"Authorization", "Bearer mine"}, {"Range", "bytes=0-1"}}, "http://api.creel/x");
    CHECK(Holds(head, "Authorization: Bearer mine"));
    CHECK(Holds(head, "Range: bytes=0-1"));
  }

  TEST_CASE("a reply's head is masked, and places below the service are the service's") {
    ResponseHead head;
    head.status = 302;
    head.headers = {{"Location", "https://api.example.org:8443/v1/next?k=s3cr3t"},
                    {"X-Echo", "was s3cr3t"},
                    {"X-s3cr3t", "1"},
                    {"Set-Cookie", "a=b"},
                    {"Connection", "X-Hop"},
                    {"X-Hop", "1"},
                    {"Transfer-Encoding", "chunked"},
                    {"Alt-Svc", "h3=\":443\""},
                    {"X-Creel-Reason", "forged"}};
    const Masker masker({"s3cr3t"});
    const std::string out =
        SandboxHead(head, masker, "https://api.example.org:8443/v1", "api", false);
    CHECK(out.starts_with("HTTP/1.1 302 \r\n"));
    CHECK(Holds(out, "Location: http://api.creel/next?k=******\r\n"));
    CHECK(Holds(out, "X-Echo: was ******\r\n"));
    CHECK(Holds(out, "Set-Cookie: a=b\r\n"));
    for (const char* gone : {"s3cr3t", "X-Hop", "chunked", "Alt-Svc", "forged", "X-***"}) {
      CAPTURE(gone);
      CHECK_FALSE(Holds(out, gone));
    }
    head.headers = {{"Location", "https://api.example.org:8443/v1evil"}};
    CHECK(Holds(SandboxHead(head, masker, "https://api.example.org:8443/v1", "api", false),
                "Location: https://api.example.org:8443/v1evil"));
  }
}

}  // namespace
}  // namespace creel::egress
