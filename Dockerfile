# syntax=docker/dockerfile:1

FROM node:26-slim AS build
WORKDIR /opt/tokenman
COPY package.json package-lock.json .npmrc ./
COPY plugin-sdk/package.json plugin-sdk/
# What the program needs at run time is all that building it needs.
RUN npm ci --omit=dev --loglevel=error
COPY . .
RUN node scripts/build.ts

FROM node:26-slim
RUN useradd --system --user-group --home-dir /data --no-create-home --shell /usr/sbin/nologin tokenman \
 && install --directory --owner=tokenman --group=tokenman --mode=0700 /data
COPY --from=build /opt/tokenman/node_modules /opt/tokenman/node_modules
COPY --from=build /opt/tokenman/dist /opt/tokenman/dist
COPY --from=build /opt/tokenman/bin /opt/tokenman/bin
COPY --from=build /opt/tokenman/LICENSE /opt/tokenman/
COPY --from=build /opt/tokenman/scripts/container.sh /usr/local/bin/tokenman-container
RUN ln -s /opt/tokenman/bin/tokenman /usr/local/bin/tokenman
USER tokenman
ENV HOME=/data \
    TOKENMAN_SERVER_DATA_DIR=/data \
    TOKENMAN_PLUGINS_DIR=/data/plugins \
    TOKENMAN_SERVER_BIND_ADDRESS=0.0.0.0
WORKDIR /data
VOLUME /data
EXPOSE 7677 7678
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:7678/health').then((reply) => process.exit(reply.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["/bin/sh", "/usr/local/bin/tokenman-container"]
CMD ["start", "--foreground"]
