#!/usr/bin/env bash
# Makes certificates for a trial of the variants of envoy.yaml, in target/tls: four authorities, each with an empty CRL,
# and the certificates that they sign. Not for production: the authorities' keys are in the same folder.
#   clients    signs alice and bob, two clients of the gate
#   upstreams  signs gate and echo, two servers
#   proxies    signs proxy, for the gate as a client of its upstream
#   next       signs carol; not trusted yet
set -euo pipefail
cd "$(dirname "$0")/.."

folder=target/tls
days=30

tools/setup.sh openssl
if [ -e "$folder" ]; then
    echo "demo-tls: $folder exists; remove it to start again" >&2
    exit 1
fi
umask 077
mkdir -p "$folder"
cp filters/vkey/deploy/envoy/*.yaml "$folder/"

key() {
    openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$folder/$1.key"
}

# authority NAME: its certificate, its key, its database of revocations, and an empty CRL.
authority() {
    key "$1"
    openssl req -x509 -new -key "$folder/$1.key" -subj "/CN=demo $1" -days $days \
        -addext keyUsage=critical,keyCertSign,cRLSign -out "$folder/$1.pem"
    : > "$folder/$1.index"
    echo 01 > "$folder/$1.number"
    cat > "$folder/$1.cnf" <<END
[ca]
default_ca = demo
[demo]
certificate = $folder/$1.pem
private_key = $folder/$1.key
database = $folder/$1.index
crlnumber = $folder/$1.number
default_md = sha256
default_crl_days = $days
END
    openssl ca -config "$folder/$1.cnf" -gencrl -out "$folder/$1.crl" 2>/dev/null
}

# leaf AUTHORITY NAME USAGE [SUBJECT ALTERNATIVE NAMES]
leaf() {
    key "$2"
    openssl req -new -key "$folder/$2.key" -subj "/CN=$2" |
        openssl x509 -req -CA "$folder/$1.pem" -CAkey "$folder/$1.key" -days $days -out "$folder/$2.pem" -extfile <(
            echo "keyUsage = critical,digitalSignature"
            echo "extendedKeyUsage = $3"
            [ -z "${4:-}" ] || echo "subjectAltName = $4"
        ) 2>/dev/null
}

authority clients
authority upstreams
authority proxies
authority next
leaf clients alice clientAuth
leaf clients bob clientAuth
leaf upstreams gate serverAuth IP:127.0.0.1
leaf upstreams echo serverAuth DNS:echo.test
leaf proxies proxy clientAuth
leaf next carol clientAuth
echo "$folder"
