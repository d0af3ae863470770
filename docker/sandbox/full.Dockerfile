# The sandbox image with what builds software: compilers, make, cmake, Node.js with npm, Python's venv.
#   docker/setup/sandbox-image.sh full      makes creel-sandbox:full; `sandbox.image` names it
FROM creel-sandbox:latest

USER root
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      build-essential cmake diffutils gawk nodejs npm patch pkg-config python3-dev python3-pip \
      python3-venv rsync sqlite3 zip \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /tmp/* /usr/share/doc/* /usr/share/man/* \
 # A sandbox cannot gain rights by them; nor should anything look as if it could.
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} +

USER nobody
WORKDIR /
CMD ["bash"]
