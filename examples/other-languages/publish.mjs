// Publishes a job from Node with a plain Kafka client (docs/wire.md):
//
//     npm install && node publish.mjs localhost:9092 shop mail '{"to": "ann@example.org", "subject": "Hello"}'
//
// KafkaJS places keys as Kafka's own clients do (murmur2), so jobs of one ordering key meet in one partition.
import { randomUUID } from 'node:crypto'
import { Kafka, Partitioners, CompressionTypes, logLevel } from 'kafkajs'

const [bootstrap, namespace, queue, payload, type = 'mail.send'] = process.argv.slice(2)
const kafka = new Kafka({ brokers: bootstrap.split(','), clientId: 'publish.mjs', logLevel: logLevel.ERROR })
const producer = kafka.producer({ idempotent: true, createPartitioner: Partitioners.DefaultPartitioner })

const id = randomUUID()
await producer.connect()
await producer.send({
  topic: `${namespace}.jobs.${queue}`,
  acks: -1, // the job is safe when all in-sync replicas have it
  compression: CompressionTypes.None,
  messages: [
    {
      key: id, // or the ordering key, if the job has one: then also as "key" below
      value: JSON.stringify({ id, type, payload: JSON.parse(payload), enqueued_at: Date.now() }),
      headers: {
        'job-id': id,
        'job-type': type,
        'content-type': 'application/json',
        derived: '1' // whoever repeats this send after an error repeats it with the same id: it runs once
      }
    }
  ]
})
await producer.disconnect()
console.log(id)
