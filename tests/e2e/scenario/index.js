// The scenario in Node.js: does what the message asks and publishes what came of it.
const sdk = require('aws-greengrass-core-sdk');

const iot = new sdk.IotData();
const functions = new sdk.Lambda();
const hoard = [];

const publish = (topic, payload) => new Promise((resolve, reject) => {
  iot.publish({ topic: `${process.env.OUT}/${topic}`, payload }, (error) => (error ? reject(error) : resolve()));
});
const say = (topic, document) => publish(topic, JSON.stringify(document));
const invoke = (payload, kind) => new Promise((resolve, reject) => {
  functions.invoke(
    { FunctionName: process.env.CALLEE, InvocationType: kind, Payload: JSON.stringify(payload) },
    (error, data) => (error ? reject(error) : resolve(data)),
  );
});
const answer = (data) => ({ error: data.FunctionError, payload: JSON.parse(data.Payload) });

exports.handler = async (event, context) => {
  if (process.env.ENCODING_TYPE === 'binary') {
    const turned = Buffer.from(event).reverse();
    await publish('bytes', turned);
    return turned;
  }
  switch (event.do) {
    case 'echo':
      await say('echo', { subject: context.clientContext.Custom.subject, event });
      break;
    case 'invoke':
      await say('invoke', answer(await invoke({ n: 20 }, 'RequestResponse')));
      break;
    case 'invoke event':
      await invoke({ n: 1 }, 'Event');
      await say('event', { error: '' });
      break;
    case 'invoke failing':
      await say('failing', answer(await invoke({ fail: 1 }, 'RequestResponse')));
      break;
    case 'raise':
      throw new Error('raised on purpose');
    case 'sleep':
      await new Promise((resolve) => { setTimeout(resolve, 60000); });
      break;
    case 'grow':
      for (;;) hoard.push(Buffer.alloc(1024 * 1024, 1));
    default:
  }
  return { did: event.do };
};
