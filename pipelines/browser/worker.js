/** A service worker that keeps the page's files, so that it opens without a network. */

// What the build wrote: {digest, files}.
importScripts("files.js");
// One origin may hold several pages.
const PREFIX = `t2i_kd ${self.registration.scope} `;
const CACHE = PREFIX + self.page.digest;

self.addEventListener("install", (event) => event.waitUntil(keep()));
self.addEventListener("activate", (event) => event.waitUntil(takeOver()));
self.addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function keep() {
  const cache = await caches.open(CACHE);
  // Asked anew, so that no file is an earlier page's.
  await cache.addAll(self.page.files.map((file) => new Request(file, { cache: "no-cache" })));
}

async function takeOver() {
  const earlier = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== CACHE);
  await Promise.all(earlier.map((name) => caches.delete(name)));
  await self.clients.claim();
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(request)) ?? fetch(request);
}
