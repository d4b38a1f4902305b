// aedes as a broker: node aedes.js MODULES PORT [CERT KEY CA]. With certificates: mutual TLS 1.3.
'use strict'
const fs = require('fs')
const [modules, port, cert, key, ca] = process.argv.slice(2)

async function main () {
  const { Aedes } = await import(`${modules}/aedes/aedes.js`)
  const broker = await Aedes.createBroker({ concurrency: 1000, queueLimit: 1000000 })
  const serve = (socket) => {
    socket.setNoDelay(true)
    broker.handle(socket)
  }
  const server = cert
    ? require('tls').createServer(
      { cert: fs.readFileSync(cert), key: fs.readFileSync(key), ca: fs.readFileSync(ca), requestCert: true }, serve)
    : require('net').createServer(serve)
  server.listen(Number(port), '127.0.0.1')
}

main()
process.on('SIGTERM', () => process.exit(0))
