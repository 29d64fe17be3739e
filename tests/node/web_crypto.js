'use strict';
// Node 18, which Debian 12 has, lacks the `crypto` of browsers, which newer SDKs take for granted. To be required before them.

globalThis.crypto ??= require('node:crypto').webcrypto;
